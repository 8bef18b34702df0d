"""Flashproof's core: sell unique card keys under a flood, without losing or doubling one."""

__version__ = "0.1.0"
