"""Reckoning about choices outside a call: what others would have charged, what owning would cost."""
