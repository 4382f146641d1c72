"""How fast, how sure: load on a service over HTTP, and what came of it."""

import zoo  # noqa: F401 - before ONNX Runtime, which would send usage statistics
