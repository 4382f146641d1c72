"""TLS of the gRPC port, with the same certificate and renewals as HTTP. `grpc.server` calls it."""

import grpc

from service.tls import Files, Renewal


def credentials(files: Files) -> grpc.ServerCredentials:
    """Make the credentials of a port with TLS; raises `OSError` if the files cannot be read.

    When a client connects, gRPC asks on its own thread for a renewed certificate.
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
