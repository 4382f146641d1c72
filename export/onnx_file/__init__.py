"""Networks that are published as ONNX files: read, cut, and given a batch of any size.

The families `onnx` and `yolo_onnx` call it, and so do `export.importer` and `export.tensors`.
"""
