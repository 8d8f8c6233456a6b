"""Scoring a checkpoint on full-size images as the benchmarks do: by class, category and instance."""
