"""Comparing sellers on real traffic: what the pairs say, and how sure one may be."""
