"""`zooserve serve`: check settings, files and ports, then start BentoML."""

import ipaddress
import os
import socket
import ssl
import sys
from functools import partial
from pathlib import Path
from typing import cast

import click
from rich.console import Console
from rich.markup import escape

from service.commands.settings_table import table
from service.engine.probe import check_device
from service.grpc import require
from service.http.cors import origins_of
from service.keys import Guard
from service.settings import SettingError, Settings, only_clients_key, read_settings, refuse_unprotected
from service.supervisor import state_folder, with_fronts
from service.tls import files_of
from zoo.cli import models_option
from zoo.variables import PREFIX, is_service_link

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_SERVE_EXAMPLES = """
\b
Examples:
  zooserve serve                                   all models of ./models on http://127.0.0.1:3000
  zooserve serve --host 0.0.0.0 --port 8080        for other machines, on another port
  ZOOSERVE_LOAD=mobilenet_v2 zooserve serve        one model only
  ZOOSERVE_GRPC_PORT=8001 zooserve serve           the Open Inference Protocol over gRPC, too
  ZOOSERVE_DEVICE=cuda zooserve serve              on the GPU, or not at all
"""


class _ServeCommand(click.Command):
    """Shows every setting with its default in `--help`."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Settings (environment variables)"):
            formatter.write_dl(
                [(row.name, f"{row.text} [{row.choices}; default: {row.default or 'empty'}]") for row in table()]
            )


class _Port(click.Option):
    """Reads `PORT`, unless Kubernetes set it for a Service."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        return None if value and is_service_link("PORT", value) else value


@click.command(cls=_ServeCommand, epilog=_SERVE_EXAMPLES)
@click.option("--host", default="127.0.0.1", show_default=True, envvar="HOST", help="Address to listen on.")
@click.option("--port", cls=_Port, default=3000, show_default=True, envvar="PORT", type=click.IntRange(1, 65535))
@models_option()
def serve(host: str, port: int, models: str | None) -> None:
    """Serve the exported models over HTTP, with BentoML."""
    if models:
        os.environ[PREFIX + "MODELS"] = models
    _import_from_path_alone()
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        settings = with_fronts(read_settings())
        refuse_unprotected(reached_by_others=not address.is_loopback)
        require(settings.grpc_port)
        guard = Guard(settings.api_keys, settings.admin_keys)
        origins_of(settings)
        tls = files_of(settings)
        check_device(settings.device, max(settings.workers, settings.engines))
    except (ValueError, SettingError) as error:
        raise click.ClickException(str(error)) from error
    _check_port(address, port, "--port (or PORT=)")
    if settings.grpc_port == port:
        raise click.ClickException(f"ZOOSERVE_GRPC_PORT={port}: HTTP has this port; choose another for one of them.")
    if settings.grpc_port:
        _check_port(address, settings.grpc_port, "ZOOSERVE_GRPC_PORT=")
    if os.environ.get("ZOOSERVE_HOST", str(address)) != str(address):
        raise click.ClickException("ZOOSERVE_HOST is not a setting: --host or HOST chooses the address.")
    os.environ["ZOOSERVE_HOST"] = str(address)  # the processes open the gRPC port at the same address
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    _announce(address, port, settings, guard)
    with state_folder() as folder:
        os.environ["BENTOML_HOME"] = str(folder)
        from service.bento import Service, ZooServe  # noqa: PLC0415 - BentoML reads its environment when it is imported
        from service.internals import start_workers  # noqa: PLC0415

        start_workers("service.worker")
        cast(Service, ZooServe).serve_http(
            host=str(address),
            port=port,
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.key) if tls else None,
            ssl_ca_certs=str(tls.clients) if tls and tls.clients else None,
            ssl_cert_reqs=int(ssl.CERT_REQUIRED) if tls and tls.clients else None,
        )


def _import_from_path_alone() -> None:
    """Let the server's processes find modules where this one does, and not in the folder that it was started in.

    `python -m` would look there first, so that a file such as `queue.py`, of this user or another, would be run.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)


def _announce(address: _Address, port: int, settings: Settings, guard: Guard) -> None:
    """Print the server's address, and warnings about its keys."""
    shown = escape(f"[{address}]" if address.version == 6 else str(address))
    scheme = "https" if settings.tls_certificate else "http"
    say = partial(Console(stderr=True).print, highlight=False, soft_wrap=True)
    say(
        f"Serving {escape(str(Path(settings.models).resolve()))} on [bold]{scheme}://{shown}:{port}[/bold] "
        f"(ready when /readyz answers 200; try it at {scheme}://{shown}:{port}/ui, its API at /docs; Ctrl+C stops)"
        + (f", gRPC on port {settings.grpc_port}" if settings.grpc_port else "")
    )
    if only_clients_key():
        say(
            "[yellow]Warning:[/yellow] ZOOSERVE_API_KEY is what clients send. This server asks for no key; "
            "ZOOSERVE_API_KEYS would make it ask."
        )
    if guard.open and not address.is_loopback:
        say(
            f"[yellow]Warning:[/yellow] anyone who reaches {shown} may use this server; ZOOSERVE_API_KEYS asks for "
            "keys."
        )


def _check_port(address: _Address, port: int, choice: str) -> None:
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on {address} port {port}: {error.strerror}. Choose another with {choice}."
            ) from error
