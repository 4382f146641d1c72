"""Environment variables of this project: the known ones, those that Kubernetes sets itself, and misspelt ones.

`service.settings` adds the server's settings. `zoo.cli` warns about misspelt names of the variables of `zoo`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PREFIX = "ZOOSERVE_"
OF_STORE = ("CACHE", "CARDS", "MIRROR", "MODELS")
"""The variables of `zoo`: the folders of downloads, of cards and of models, and a mirror of all sources."""
OF_CLIENTS = ("ADMIN_KEY", "API_KEY", "KEY", "URL")
"""The variables of clients; `KEY` was in the requests that earlier pages `/ui` copied."""
_INTERNAL = (
    "COMPARE_SANDBOX",
    "COUNTS",
    "ENGINE",
    "HOST",
    "SHARED",
    "SUPERVISOR",
)  # set by a server for its processes
_WITHOUT_PREFIX = ("PORT",)  # read by `zooserve serve`; HOST too, but _INTERNAL has ZOOSERVE_HOST
# For a Service called `zooserve-grpc`, Kubernetes and Docker set ZOOSERVE_GRPC_PORT=tcp://10.0.0.1:8001,
# ZOOSERVE_GRPC_SERVICE_HOST, ZOOSERVE_GRPC_SERVICE_PORT_HTTP, ZOOSERVE_GRPC_PORT_8001_TCP_ADDR and similar ones.
_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_LINK_NAME = re.compile(
    r"ZOOSERVE_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)"
)
_PROTECTS = re.compile("KEY|TOKEN|AUTH|TLS|SSL|CERT|SECRET|PASSW")
# The smallest similarities (`difflib`) for which a name counts as misspelt.
_NEAR = 0.6  # of names without their prefix
_NEARER = 0.75  # the same, if other names may be settings of the server
_NEAR_PREFIX = 0.9  # of whole names, if the prefix itself is misspelt


class Unknown(NamedTuple):
    """A variable that is not known.

    Attributes:
        near: the variable that may have been meant, or "".
        protects: whether the name or `near` is about protection: a key, or TLS.
    """

    name: str
    near: str
    protects: bool

    def __str__(self) -> str:
        meant = f"Is {self.near} meant?" if self.near else "`zooserve serve --help` lists all settings."
        return f"{self.name} is ignored: there is no such setting. {meant}"


def is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes set a variable, for a Service of this name, and not the user."""
    if name == "PORT" or (name.startswith(PREFIX) and name.endswith("_PORT")):
        return bool(_LINK.fullmatch(value.strip()) or _LINK_NAME.fullmatch(name))
    return bool(_LINK_NAME.fullmatch(name))


def unknown(environment: Mapping[str, str], settings: Iterable[str]) -> list[Unknown]:
    """List the variables that look like this project's and are not known. Those set by Kubernetes are ignored.

    Args:
        environment: all variables, with their values; empty ones count as not set.
        settings: further known names, without the prefix.
    """
    meant = sorted({*settings, *OF_STORE})
    known = {PREFIX + name for name in (*meant, *OF_CLIENTS, *_INTERNAL)}
    found = []
    for name, value in sorted(environment.items()):
        if name in known or not value.strip() or is_service_link(name, value):
            continue
        if name.startswith(PREFIX):
            near = _nearest(name.removeprefix(PREFIX), meant, _NEAR)
            found.append(Unknown(name, near, bool(_PROTECTS.search(name + near))))
        elif near := _with_prefix_misspelt(name, meant):
            found.append(Unknown(name, near, bool(_PROTECTS.search(near))))
    return found


def public(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of this project that other machines may see: those that hold no key and no password."""
    hidden = {f"{PREFIX}MIRROR"}  # an address, perhaps with a user's password
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) and not _PROTECTS.search(name) and name not in hidden
    }


def misspelt_of_store(environment: Mapping[str, str]) -> list[Unknown]:
    """List misspelt variables of `OF_STORE`, for commands that do not know the server's settings."""
    known = {PREFIX + name for name in OF_STORE}
    found = []
    for name, value in sorted(environment.items()):
        if name in known or not value.strip():
            continue
        short = name.removeprefix(PREFIX)
        near = _nearest(short, OF_STORE, _NEARER) if short != name else _with_prefix_misspelt(name, OF_STORE)
        if near:
            found.append(Unknown(name, near, protects=False))
    return found


def _nearest(name: str, meant: Sequence[str], cutoff: float) -> str:
    """Return the variable that a name without prefix probably means, or ""; MODELS_DIR and KEYS mean one, too."""
    if name in _WITHOUT_PREFIX:
        return name
    close = [one for one in meant if one.startswith(name) or name.startswith(f"{one}_") or one.endswith(f"_{name}")]
    close = difflib.get_close_matches(name, close or meant, n=1, cutoff=0.0 if close else cutoff)
    return PREFIX + close[0] if close else ""


def _with_prefix_misspelt(name: str, meant: Sequence[str]) -> str:
    """Return the variable that ZOOSERV_API_KEYS, zooserve_api_keys or zooserve.api-keys probably means, or ""."""
    plain = re.sub("[^A-Z0-9]", "_", name.upper())
    if not plain.startswith("ZO"):
        return ""
    close = difflib.get_close_matches(plain, [PREFIX + one for one in meant], n=1, cutoff=_NEAR_PREFIX)
    return close[0] if close else ""
