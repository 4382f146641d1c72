"""HTTP, version 1: the only place that knows status codes and content types."""
