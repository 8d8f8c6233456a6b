"""Graphs for CPUs: 3x3 convolutions as matrix products, on tensors whose batches and tiles lie innermost."""
