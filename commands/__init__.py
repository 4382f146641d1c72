"""Commands that need both `export` and `service`. No module imports them."""

import zoo  # noqa: F401 - before ONNX Runtime, which would send usage statistics
