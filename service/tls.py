"""TLS for HTTP and gRPC, with certificates that are read again when they are renewed.

`commands.serve` checks the files, `http.server.connections` and `grpc.server` use them. A renewed certificate is used
for new connections within seconds. If it is invalid, an error is logged and the old one stays.
"""

import logging
import ssl
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from service.settings import SettingError, Settings
from zoo.files import read_regular

logger = logging.getLogger(__name__)
_LOOK_EVERY = 1.0  # seconds
_LARGEST = 1_000_000  # bytes of a file


class Files(NamedTuple):
    """Paths of the certificate with its chain, of its key, and of the authorities of clients' certificates (PEM)."""

    certificate: Path
    key: Path
    clients: Path | None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Return the files' contents after checking that they match; raises `OSError` or `ssl.SSLError`."""
        contents = (
            read_regular(self.certificate, _LARGEST),
            read_regular(self.key, _LARGEST),
            read_regular(self.clients, _LARGEST) if self.clients else None,
        )
        load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self)
        return contents


def files_of(settings: Settings) -> Files | None:
    """Return the files that the settings name, or None without TLS.

    Raises:
        SettingError: a setting is missing, or the files cannot be used.
    """
    if not (settings.tls_certificate or settings.tls_key or settings.tls_clients):
        return None
    if not (settings.tls_certificate and settings.tls_key):
        raise SettingError("TLS needs both ZOOSERVE_TLS_CERTIFICATE and ZOOSERVE_TLS_KEY.")
    clients = Path(settings.tls_clients) if settings.tls_clients else None
    files = Files(Path(settings.tls_certificate), Path(settings.tls_key), clients)
    try:
        files.read()
    except (OSError, ValueError) as error:
        raise SettingError(f"TLS: {', '.join(str(file) for file in files if file)} cannot be used: {error}") from error
    return files


def load(context: ssl.SSLContext, files: Files) -> None:
    """Load the files into a context; raises `OSError` or `ssl.SSLError`."""
    context.load_cert_chain(files.certificate, files.key, password=lambda: b"")  # without one, OpenSSL would ask for it
    if files.clients:
        context.load_verify_locations(files.clients)


class Renewal:
    """Notices when the files have changed."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._state = self._now()
        self._looked = monotonic()

    def renewed(self) -> tuple[bytes, bytes, bytes | None] | None:
        """Return new contents once after the files have changed to valid ones, else None. For every connection."""
        if monotonic() - self._looked < _LOOK_EVERY:
            return None
        self._looked = monotonic()
        state = self._now()
        if state == self._state:
            return None
        self._state = state
        try:
            contents = self._files.read()
        except (OSError, ValueError) as error:
            # While only one of two files is new, they do not match. The change of the other is noticed, too.
            logger.error("the TLS certificate stays as it was: %s: %s", self._files.certificate, error)  # noqa: TRY400
            return None
        logger.info("%s is renewed", self._files.certificate)
        return contents

    def renew(self, context: ssl.SSLContext) -> None:
        """Load the files into a context if they have changed.

        A context keeps each authority that it was given. So where clients have certificates, connections get a new one.
        """
        if self.renewed() is None:
            return
        if self._files.clients is None:
            load(context, self._files)
            return
        fresh = ssl.SSLContext(context.protocol)
        fresh.options, fresh.verify_mode = context.options, context.verify_mode
        load(fresh, self._files)
        context.num_tickets, context.options = 0, context.options | ssl.OP_NO_TICKET

        def use(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = fresh

        context.sni_callback = use

    def _now(self) -> list[tuple[int, int, int]]:
        found = []
        for file in self._files:
            try:
                status = file.stat() if file else None
            except OSError:
                status = None
            found.append((status.st_mtime_ns, status.st_size, status.st_ino) if status else (0, 0, 0))
        return found
