"""Compile and load exported graphs: ONNX Runtime and TensorRT behind one small interface. Knows no video."""
