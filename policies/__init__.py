"""Choosing: pure functions and small state machines; no I/O, no clock, no hidden randomness."""
