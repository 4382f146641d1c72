"""`zooserve reload`: make a running server load new versions of its models."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import click
import requests
from rich.console import Console
from rich.table import Table
from zooserve_client.local import is_local

from zoo.cli import print_json
from zoo.sources.http import without_credentials


@click.command(
    epilog="""
\b
Examples:
  zooserve reload                                    all new versions in the server's folder of models
  zooserve reload mobilenet_v2                       this model, even if it was refused or unloaded before
  zooserve reload --unload u2netp                    stop serving it
  ZOOSERVE_ADMIN_KEY=... zooserve reload --server https://vision.example.com
"""
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--server", default="http://127.0.0.1:3000", show_default=True, help="Address of the server.")
@click.option("--key", envvar="ZOOSERVE_ADMIN_KEY", default="", help="An administrator's key. [$ZOOSERVE_ADMIN_KEY]")
@click.option("--unload", is_flag=True, help="Unload the models instead.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait for each model.")
@click.option("--json", "as_json", is_flag=True, help="Print the server's answers as JSON.")
def reload(*, names: tuple[str, ...], server: str, key: str, unload: bool, timeout: float, as_json: bool) -> None:
    """Load new versions of models into a running server, without an interruption.

    A new version is loaded and tested while the old one answers, and then replaces it. If it fails a check, the old one
    stays. A server also looks for new versions by itself (ZOOSERVE_WATCH_S). The server must have been started with
    ZOOSERVE_ADMIN_KEYS.
    """
    if unload and not names:
        raise click.UsageError("--unload needs the NAME of a model")
    verb = "unload" if unload else "load"
    if not (key := key.strip()).isprintable():  # a file's key ends with a line break
        raise click.UsageError("--key: it has a line break or another control character in it")
    paths = [f"/v1/models/{quote(name, safe='')}/{verb}" for name in names] or ["/v1/models/reload"]
    with requests.Session() as session:
        if key:
            session.headers["Authorization"] = f"Bearer {key}".encode()
        for path in paths:
            _answer(session.post, server.rstrip("/") + path, timeout)
        listed = _answer(session.get, f"{server.rstrip('/')}/v1/models", timeout)
    models = [model for model in listed["models"] if not names or model["name"] in names]
    if as_json:
        print_json(models)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "VERSION", "STATE"):
        table.add_column(heading)
    for model in models:
        table.add_row(model["name"], model.get("version", ""), model["state"])
    width = None if Console().is_terminal else 200  # in a pipe, lines are not wrapped
    Console(highlight=False, markup=False, width=width).print(table)


def _answer(method: Callable[..., requests.Response], url: str, timeout: float) -> Any:
    """Return the server's answer to a request; raise `ClickException` with its message if it refuses."""
    try:
        direct = {"http": "", "https": ""} if is_local(url) else None  # instead of the environment's proxies
        response = method(url, timeout=timeout, proxies=direct)
    except (requests.RequestException, ValueError) as error:  # of a URL that cannot be parsed
        said = f"{url} cannot be reached: {error}. Name the server with --server."
        raise click.ClickException(without_credentials(said)) from error
    try:
        body = response.json()
    except ValueError:
        said = f"{url} answered {response.status_code} without JSON: is it zooserve's?"
        raise click.ClickException(without_credentials(said)) from None
    if not response.ok:
        hint = " Give it by --key or ZOOSERVE_ADMIN_KEY." if response.status_code == HTTPStatus.UNAUTHORIZED else ""
        raise click.ClickException(f"{body.get('detail', body)}{hint}")
    return body
