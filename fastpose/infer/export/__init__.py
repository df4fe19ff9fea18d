"""Networks as files that run without fastpose: ONNX, torch.export and AOTInductor."""
