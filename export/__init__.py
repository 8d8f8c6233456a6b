"""PyTorch to ONNX: graph rewriting, cutting at a split level, verification against PyTorch. Never runs a video."""
