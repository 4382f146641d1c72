"""Environment variables of this project: which are read, which Kubernetes sets by itself, and which are misspelt.

`service.settings` adds its settings to them; `zoo.cli` warns about names that `zoo` and `export` might have read.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

PREFIX = "ZOOSERVE_"
OF_STORE = ("CACHE", "CARDS", "MODELS")
"""What `zoo` reads: the folders of downloads, of cards and of models."""
OF_CLIENTS = ("ADMIN_KEY", "API_KEY", "KEY", "URL")
"""What those who ask a server read; `KEY` stands in the requests that the page copies."""
_INTERNAL = ("COMPARE_SANDBOX", "COUNTS", "HOST", "SHARED", "SUPERVISOR")  # between the processes of one server
_WITHOUT_PREFIX = ("PORT",)  # read by `zooserve serve`; HOST too, but _INTERNAL has ZOOSERVE_HOST
# What Kubernetes and Docker set for a Service called `zooserve-grpc`: ZOOSERVE_GRPC_PORT=tcp://10.0.0.1:8001, and
# ZOOSERVE_GRPC_SERVICE_HOST, ZOOSERVE_GRPC_SERVICE_PORT_HTTP, ZOOSERVE_GRPC_PORT_8001_TCP_ADDR and their like.
_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_LINK_NAME = re.compile(
    r"ZOOSERVE_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)"
)
_PROTECTS = re.compile("KEY|TOKEN|AUTH|TLS|SSL|CERT|SECRET|PASSW")
_NEAR = 0.6  # of the names without their prefix
_NEARER = 0.75  # the same, where other names may be settings of the server
_NEAR_PREFIX = 0.9  # of whole names, where the prefix itself is misspelt


class Unknown(NamedTuple):
    """A variable that nothing reads.

    Attributes:
        near: the variable that may have been meant, or "".
        protects: whether what was meant seems to protect a server: a key, or TLS.
    """

    name: str
    near: str
    protects: bool

    def __str__(self) -> str:
        meant = f"Is {self.near} meant?" if self.near else "`zooserve serve --help` lists all settings."
        return f"{self.name} is ignored: there is no such setting. {meant}"


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is not the user's: Kubernetes sets it in every container, for a Service of this name."""
    if name == "PORT" or (name.startswith(PREFIX) and name.endswith("_PORT")):
        return bool(_LINK.fullmatch(value.strip()) or _LINK_NAME.fullmatch(name))
    return bool(_LINK_NAME.fullmatch(name))


def unknown(environment: Mapping[str, str], settings: Iterable[str]) -> list[Unknown]:
    """List the variables that look like this project's and that nothing reads; service links are left out.

    Args:
        environment: all variables, with their values; empty ones count as not set.
        settings: names that are read, in addition to those of this module; without the prefix.
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


def misspelt_of_store(environment: Mapping[str, str]) -> list[Unknown]:
    """List the variables that are nearly one of `OF_STORE`, for commands that do not know the server's settings."""
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
    """Return the variable that a name without its prefix stands for, or ""; MODELS_DIR and KEYS stand for one, too."""
    if name in _WITHOUT_PREFIX:
        return name
    close = [one for one in meant if one.startswith(name) or name.startswith(f"{one}_") or one.endswith(f"_{name}")]
    close = difflib.get_close_matches(name, close or meant, n=1, cutoff=0.0 if close else cutoff)
    return PREFIX + close[0] if close else ""


def _with_prefix_misspelt(name: str, meant: Sequence[str]) -> str:
    """Return the variable that ZOOSERV_API_KEYS, zooserve_api_keys or zooserve.api-keys stands for, or ""."""
    plain = re.sub("[^A-Z0-9]", "_", name.upper())
    if not plain.startswith("ZO"):
        return ""
    close = difflib.get_close_matches(plain, [PREFIX + one for one in meant], n=1, cutoff=_NEAR_PREFIX)
    return close[0] if close else ""
