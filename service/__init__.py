"""Serves the models of the store: from a folder to answers over HTTP and gRPC."""

import zoo  # noqa: F401 - before ONNX Runtime, which would send usage statistics
