"""Benches: what the gateway costs in CPU and memory, and whether its books are right whatever fails.

Each is a command of its own (`./run bench speed`, `./run bench money`) that starts every process it needs on loopback,
prints a table, writes `--json FILE` and exits 0 when every must holds.
"""
