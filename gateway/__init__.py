"""Keeping: HTTP, state, money and the wiring of sellers and policies."""
