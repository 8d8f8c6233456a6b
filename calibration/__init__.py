"""Activation ranges, Q/DQ placement and reduced precision. Knows no TensorRT object."""
