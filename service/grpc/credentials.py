"""TLS of the gRPC port: the certificate that HTTP has, and its renewals. `grpc.server` asks for it."""

import grpc

from service.tls import Files, Renewal


def credentials(files: Files) -> grpc.ServerCredentials:
    """Make what a secure port needs; raises `OSError` where the files cannot be read.

    gRPC asks for a renewed certificate when a client connects, on a thread of its own.
    """
    renewal = Renewal(files)

    def configuration(contents: tuple[bytes, bytes, bytes | None]) -> grpc.ServerCertificateConfiguration:
        certificate, key, clients = contents
        return grpc.ssl_server_certificate_configuration([(key, certificate)], clients)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        contents = renewal.renewed()
        return configuration(contents) if contents else None

    return grpc.dynamic_ssl_server_credentials(
        configuration(files.read()), renewed, require_client_authentication=files.clients is not None
    )
