"""From a checkpoint to ONNX graphs: fp32, fp16 and int8."""
