"""Read a network from ONNX, or draft one."""
