"""Makes models for the store: from a checkpoint to a folder that explains itself."""

import zoo  # noqa: F401 - before ONNX Runtime, which would send usage statistics
