"""The Open Inference Protocol (KServe V2), independent of the transport: `http.v2` and `grpc` use it."""
