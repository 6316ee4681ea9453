"""The other engine: ONNX graphs under ONNX Runtime, for what the native engine does not run, and for CUDA."""
