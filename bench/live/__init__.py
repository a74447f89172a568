"""Whether the live gateway does what the simulator says: the same calls through both."""
