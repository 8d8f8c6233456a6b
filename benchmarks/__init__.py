"""Measurements: scripts that print a table and write JSON. Results worth keeping are in `results/`."""
