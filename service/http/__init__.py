"""The HTTP server and its APIs, `/v1` and `/v2`."""
