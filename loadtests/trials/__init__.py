"""Measurements that are no flash sale, each its own verb of `python -m loadtests`."""
