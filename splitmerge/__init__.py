"""splitmerge: full-resolution semantic segmentation from PyTorch to compiled engines.

This package is the ground floor: what several stages share (labels, errors, files, the package format) and the
command line. The stages are the root folders `training export calibration engines runtime`, each a plain package;
imports run in that order only. Nothing here imports PyTorch, ONNX or an engine.
"""

__version__ = "0.1.0"
