"""The shop under test: its parts brought up, set, killed, and waited for until quiet."""
