"""Layers, models, data sets, losses, metrics and the training loop. Never imports ONNX or an engine."""
