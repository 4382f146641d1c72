"""The Open Inference Protocol (KServe V2), without a transport: `http.v2` and `grpc` are above it."""
