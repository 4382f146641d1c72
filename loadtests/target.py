"""The server under test: where it is and how it is asked. Every load test takes it from the same options.

`served` asks what it has. Load on a host that is not this machine wants `--remote`, so that nobody loads another's
server by mistake.
"""

import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, wraps
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlencode, urlsplit

import click
import psutil

Scheme = Literal["http", "https", "grpc", "grpcs"]
TASKS = ("classify", "detect", "segment")
DEFAULT_URL = "http://127.0.0.1:3000"
KEY_VARIABLE = "ZOOSERVE_API_KEY"
_PORTS = {"http": 80, "https": 443, "grpc": 8001, "grpcs": 8001}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class TargetError(ValueError):
    """A server that cannot be tested as it was given, with the reason and what to do."""


@dataclass(frozen=True)
class Target:
    """A server under test, and what it is asked for. `parse` makes one of what a user gives.

    Attributes:
        scheme: `http`, `https`, or the Open Inference Protocol over gRPC: `grpc`, `grpcs` (with TLS).
        host: a name or an address; certificates are checked against it, and `Host` names it.
        port: of the server.
        prefix: of every path, such as `/vision`; empty or without a slash at its end.
        api_key: sent with every request; never printed.
        ca_file: certificates (PEM) that are trusted; None for the system's.
        task: `classify`, `detect` or `segment`; empty: see `served.Served.choose`.
        model: a model's name; empty: the task's default.
        ip: what `host` was resolved to, once; empty: it is not resolved yet.
    """

    scheme: Scheme
    host: str
    port: int
    prefix: str = ""
    api_key: str = field(default="", repr=False)
    ca_file: Path | None = None
    task: str = ""
    model: str = ""
    ip: str = ""

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        remote: bool = False,
        api_key: str = "",
        ca_file: Path | None = None,
        task: str = "",
        model: str = "",
    ) -> "Target":
        """Read a URL, resolve its host, and check that load may go there.

        Args:
            url: such as `http://127.0.0.1:3000`, `https://vision.example.org/vision` or `grpc://127.0.0.1:8001`.
            remote: allows a host that is not this machine.
            api_key: as the attribute; so are the others.
            ca_file: see there.
            task: see there.
            model: see there.

        Raises:
            TargetError: it is no such URL, the host has no address, or it is not this machine and `remote` is not set.
        """
        expected = f"{url or 'nothing'}: expected http://HOST:PORT, https://, grpc:// or grpcs://, with a path prefix"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise TargetError(f"{expected} ({error})") from error
        if parts.username is not None or parts.password is not None:
            raise TargetError(f"a URL holds no user: give a key with --api-key or {KEY_VARIABLE}")
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise TargetError(expected)
        prefix = parts.path.rstrip("/")
        if prefix and parts.scheme.startswith("grpc"):
            raise TargetError(f"{url}: gRPC has no path prefix; give {parts.scheme}://HOST:PORT")
        if not (api_key.isascii() and api_key.isprintable()):
            raise TargetError("the API key holds characters that no header can carry: give it without line breaks")
        addresses = _resolve(parts.hostname)
        if not remote and not all(map(is_here, addresses)):
            raise TargetError(
                f"{parts.hostname} is not this machine: confirm with --remote that load may go to a host that is not "
                "this machine"
            )
        return cls(
            cast("Scheme", parts.scheme),
            parts.hostname,
            port or _PORTS[parts.scheme],
            prefix,
            api_key.strip(),
            ca_file,
            task,
            model,
            addresses[0],
        )

    @classmethod
    def at(cls, host: str, port: int) -> "Target":
        """Return a server of this machine that has neither TLS nor keys nor a path prefix; `host` is an address."""
        return cls("http", host, port, ip=host)

    @property
    def url(self) -> str:
        """Of the server, without the key."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """The value of the header `Host`: `HOST:PORT`, without the port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.scheme.startswith("http") and self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request carries beside its own headers: the key, where there is one."""
        return {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    @property
    def grpc(self) -> bool:
        """Whether the server is asked over gRPC."""
        return self.scheme.startswith("grpc")

    def path(self, path: str) -> str:
        """Return a path of the service, such as `/v1/classify`, as the server has it."""
        return f"{self.prefix}{path}"

    @property
    def question(self) -> str:
        """The service's path of `task` and `model`, such as `/v1/classify?model=lenet5`, without the prefix."""
        return self.question_with({})

    def question_with(self, options: Mapping[str, str]) -> str:
        """Return `question` with options, such as `top_k`."""
        query = ({"model": self.model} if self.model else {}) | dict(options)
        return f"/v1/{self.task}" + (f"?{urlencode(query)}" if query else "")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return what TLS connections are made with; None without TLS.

        Raises:
            TargetError: `ca_file` holds no certificates.
        """
        return _context(self.ca_file) if self.scheme in ("https", "grpcs") else None


def target_options(
    *,
    url: str | None = DEFAULT_URL,
    schemes: str = "http, https, grpc or grpcs",
    task: str = "the first that the server has",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a click command the options of a server under test, and the `Target` of them as its argument `target`.

    Args:
        url: where none is given; with None, `target` is None then.
        schemes: that the command speaks, for `--help`.
        task: what is asked without `--task`, for `--help`.
    """
    options = (
        click.option(
            "--url",
            default=url,
            show_default=url is not None,
            help=f"Of the server: {schemes}, with its path prefix if it has one.",
        ),
        click.option("--remote", is_flag=True, help="Confirm that load may go to a host that is not this machine."),
        click.option(
            "--api-key", default="", envvar=KEY_VARIABLE, show_envvar=True, help="Where the server needs one."
        ),
        click.option("--ca-file", type=_FILE, help="Certificates (PEM) to trust, such as a private authority's."),
        click.option("--task", default="", type=click.Choice(["", *TASKS]), metavar=f"[{'|'.join(TASKS)}]",
                     help=f"[default: {task}]"),
        click.option("--model", default="", metavar="NAME", help="[default: the task's]"),
    )  # fmt: skip

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def called(
            *args: Any,
            url: str | None,
            remote: bool,
            api_key: str,
            ca_file: Path | None,
            task: str,
            model: str,
            **more: Any,
        ) -> Any:
            target = None
            if url is not None:
                try:
                    target = Target.parse(url, remote=remote, api_key=api_key, ca_file=ca_file, task=task, model=model)
                    target.ssl_context()
                except TargetError as error:
                    raise click.UsageError(str(error)) from error
            return command(*args, target=target, **more)

        for option in reversed(options):
            called = option(called)
        return called

    return add


def _resolve(host: str) -> list[str]:
    """Return all addresses of a host, IPv4 first."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetError(f"{host} has no address: {getattr(error, 'strerror', None) or error}") from error
    return list(dict.fromkeys(str(one[4][0]) for one in sorted(found, key=lambda one: one[0] != socket.AF_INET)))


def is_here(address: str) -> bool:
    """Whether an address is one of this machine's."""
    plain = ipaddress.ip_address(address.partition("%")[0])
    if plain.is_loopback:
        return True
    own = [one.address.partition("%")[0] for each in psutil.net_if_addrs().values() for one in each]
    return str(plain) in own


@cache
def _context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise TargetError(f"{ca_file} holds no certificates in PEM: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context
