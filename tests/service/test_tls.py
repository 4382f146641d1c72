"""TLS for HTTP and gRPC: with the certificate that the settings name, renewed while serving, and clients' own."""

import shutil
import socket
import ssl
import subprocess
import time

import grpc
import pytest

from service.settings import SettingError, Settings
from service.tls import files_of
from tests.conftest import free_port, serving

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")
HEALTH = "/grpc.health.v1.Health/Check"


def certificate(folder, name: str, authority: str = "") -> None:
    """Make NAME.pem and NAME.key; signed by themselves, or by an authority's."""
    signing = ["-CA", folder / f"{authority}.pem", "-CAkey", folder / f"{authority}.key"] if authority else []
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-days", "2"]
    command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", *signing]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("first", "second", "authority"):
        certificate(folder, name)
    certificate(folder, "client", "authority")
    return folder


def context(certificates, trusted: str, client: str = "") -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=certificates / f"{trusted}.pem")
    if client:
        made.load_cert_chain(certificates / f"{client}.pem", certificates / f"{client}.key")
    return made


def ask(server, made: ssl.SSLContext) -> bytes:
    """Ask over HTTP; the status line, or empty where the connection is refused."""
    try:
        with (
            socket.create_connection(server.address, timeout=10) as plain,
            made.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return connection.recv(65536).partition(b"\r\n")[0]
    except (ssl.SSLError, ConnectionError):
        return b""


def ask_grpc(server, certificates, trusted: str, client: str = "") -> bool:
    """Ask over gRPC: whether it answers."""
    pair = [(certificates / f"{client}.{kind}").read_bytes() for kind in ("key", "pem")] if client else [None, None]
    made = grpc.ssl_channel_credentials((certificates / f"{trusted}.pem").read_bytes(), *pair)
    with grpc.secure_channel(server.grpc, made) as channel:
        try:
            return bool(channel.unary_unary(HEALTH)(b"", timeout=10))
        except grpc.RpcError:
            return False


def serving_tls(folder, log, models, **settings: str):
    port, grpc_port = free_port(), free_port()
    context_manager = serving(
        log,
        port=port,
        ZOOSERVE_MODELS=str(models),
        ZOOSERVE_LOAD="lenet5",
        ZOOSERVE_GRPC_PORT=str(grpc_port),
        ZOOSERVE_TLS_CERTIFICATE=str(folder / "served.pem"),
        ZOOSERVE_TLS_KEY=str(folder / "served.key"),
        **settings,
    )
    return context_manager, ("127.0.0.1", port), f"127.0.0.1:{grpc_port}"


def publish(certificates, folder, name: str) -> None:
    for kind in ("key", "pem"):
        shutil.copy(certificates / f"{name}.{kind}", folder / f"new.{kind}")
        (folder / f"new.{kind}").replace(folder / f"served.{kind}")


def wait(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_renewed_certificate_is_served_without_a_gap(certificates, models, tmp_path):
    publish(certificates, tmp_path, "first")
    manager, address, grpc_address = serving_tls(tmp_path, tmp_path / "log", models)
    with manager as server:
        server.address, server.grpc = address, grpc_address
        first, second = context(certificates, "first"), context(certificates, "second")
        wait(lambda: ask(server, first) == b"HTTP/1.1 200 OK")
        wait(lambda: ask_grpc(server, certificates, "first"))
        assert ask(server, second) == b""
        with socket.create_connection(address) as plain:
            plain.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 200"), "TLS alone"
        publish(certificates, tmp_path, "second")
        wait(lambda: ask(server, second) == b"HTTP/1.1 200 OK")
        wait(lambda: ask_grpc(server, certificates, "second"))
        assert ask(server, first) == b""
        (tmp_path / "served.pem").write_text("not a certificate")
        time.sleep(1.5)
        assert ask(server, second) == b"HTTP/1.1 200 OK", "the old one stays"
        assert ask_grpc(server, certificates, "second")
        wait(lambda: "the TLS certificate stays as it was" in server.log.read_text())
        assert "PRIVATE KEY" not in server.log.read_text()


def test_clients_show_their_certificates_where_that_is_asked_for(certificates, models, tmp_path):
    publish(certificates, tmp_path, "first")
    clients = {"ZOOSERVE_TLS_CLIENTS": str(certificates / "authority.pem")}
    manager, address, grpc_address = serving_tls(tmp_path, tmp_path / "log", models, **clients)
    with manager as server:
        server.address, server.grpc = address, grpc_address
        known = context(certificates, "first", "client")
        wait(lambda: ask(server, known) == b"HTTP/1.1 200 OK")
        wait(lambda: ask_grpc(server, certificates, "first", "client"))
        for untrusted in ("", "second"):
            assert ask(server, context(certificates, "first", untrusted)) == b""
            assert not ask_grpc(server, certificates, "first", untrusted)


def test_an_authority_that_is_withdrawn_is_not_trusted_any_more(certificates, models, tmp_path):
    publish(certificates, tmp_path, "first")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes((certificates / "authority.pem").read_bytes())
    manager, address, grpc_address = serving_tls(tmp_path, tmp_path / "log", models, ZOOSERVE_TLS_CLIENTS=str(trusted))
    with manager as server:
        server.address, server.grpc = address, grpc_address
        old, new = context(certificates, "first", "client"), context(certificates, "first", "second")
        wait(lambda: ask(server, old) == b"HTTP/1.1 200 OK")
        assert ask(server, new) == b""
        (tmp_path / "renewed.pem").write_bytes((certificates / "second.pem").read_bytes())
        (tmp_path / "renewed.pem").rename(trusted)
        wait(lambda: ask(server, new) == b"HTTP/1.1 200 OK")
        assert ask(server, old) == b""
        wait(lambda: not ask_grpc(server, certificates, "first", "client"))


@pytest.mark.parametrize(
    ("pem", "key", "said"),
    [
        ("first.pem", "", "both"),
        ("", "first.key", "both"),
        ("first.pem", "second.key", "cannot be used"),
        ("none.pem", "first.key", "cannot be used"),
        ("first.key", "first.key", "cannot be used"),
        (".", "first.key", "cannot be used"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(certificates, pem, key, said):
    settings = Settings(
        tls_certificate=str(certificates / pem) if pem else "", tls_key=str(certificates / key) if key else ""
    )
    with pytest.raises(SettingError, match=said):
        files_of(settings)


def test_a_key_with_a_password_stops_the_start(certificates, tmp_path):
    """Without asking for it on the terminal."""
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", certificates / "first.key", "-aes128", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(SettingError, match="cannot be used"):
        files_of(Settings(tls_certificate=str(certificates / "first.pem"), tls_key=str(locked)))


def test_without_settings_there_is_no_tls():
    assert files_of(Settings()) is None
