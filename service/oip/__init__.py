"""The Open Inference Protocol (KServe V2), without a transport: `service.http.oip` and gRPC stand in front of it."""
