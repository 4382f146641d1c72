"""All settings of a server, read from the environment once at start. `zooserve serve --help` prints this table."""

import difflib
import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from service.options import expected

PREFIX = "ZOOSERVE_"
# What is read elsewhere under our prefix: by other commands, and what the server's processes tell each other.
_NO_SETTINGS = ("ADMIN_KEY", "API_KEY", "CACHE", "CARDS", "COUNTS", "HOST", "SHARED", "SUPERVISOR")
# What Kubernetes and Docker set for a Service called `zooserve-grpc`: ZOOSERVE_GRPC_PORT=tcp://10.0.0.1:8001, and
# ZOOSERVE_GRPC_SERVICE_HOST, ZOOSERVE_GRPC_SERVICE_PORT_HTTP, ZOOSERVE_GRPC_PORT_8001_TCP_ADDR and their like.
_LINK = re.compile(r"(tcp|udp|sctp)://\S+:\d+")
_LINK_NAME = re.compile(
    r"ZOOSERVE_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)"
)


class SettingError(Exception):
    """An environment variable whose value is out of range, with its name and what was expected."""


class Settings(Struct, frozen=True):
    """Every field is the environment variable `ZOOSERVE_<FIELD>`."""

    models: Annotated[str, Meta(description="The folder of exported models.")] = "models"
    load: Annotated[str, Meta(description="Names of the models to serve, with commas; empty: all that are there.")] = ""
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        Meta(description="Where to run; `auto` takes CUDA where there is a GPU, the others fail where they cannot."),
    ] = "auto"
    grpc_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="A second port, for the Open Inference Protocol over gRPC; 0: none. Needs zooserve[grpc].",
        ),
    ] = 0
    workers: Annotated[int, Meta(ge=1, le=64, description="Server processes. One uses all cores on a CPU.")] = 1
    threads: Annotated[
        int, Meta(ge=0, le=256, description="Worker threads of a process; 0: its share of the cores.")
    ] = 0
    max_batch: Annotated[
        int,
        Meta(ge=0, le=256, description="The most pictures in one run; 0: what was fastest when the model was loaded."),
    ] = 0
    max_queue: Annotated[int, Meta(ge=1, le=100_000, description="Pictures of a model under way; more get 429.")] = 256
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000, description="Deadline of a request.")] = 30_000
    max_body_mb: Annotated[float, Meta(ge=0.001, le=1024, description="Largest body; larger ones get 413.")] = 32.0
    max_megapixels: Annotated[float, Meta(ge=0.001, le=1000, description="Largest picture; larger ones get 413.")] = (
        50.0
    )
    max_images: Annotated[int, Meta(ge=1, le=1000, description="Most pictures in one request.")] = 32
    max_rows: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Most rows of tensors in one request; more get 413.")
    ] = 65_536
    max_answer_mb: Annotated[
        float, Meta(ge=0.001, le=4096, description="Largest answer of tensors (/v2, gRPC); what is larger gets 413.")
    ] = 64.0
    max_connections: Annotated[
        int, Meta(ge=1, le=100_000, description="Open connections, and as many over gRPC; more get 503.")
    ] = 2000
    receive_s: Annotated[
        float, Meta(ge=0.01, le=3600, description="Seconds in which a request must have arrived; else it gets 408.")
    ] = 30.0
    keep_alive_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Seconds that an idle connection stays open; more than a load balancer in front keeps its own.",
        ),
    ] = 75.0
    max_bodies_mb: Annotated[
        float,
        Meta(
            ge=0.001, le=1_000_000, description="Bodies of all requests under way; more get 503 before they are read."
        ),
    ] = 512.0
    cors_origins: Annotated[
        str,
        Meta(description="Origins whose pages may use the server from a browser, with commas; `*`: all; empty: none."),
    ] = ""
    drain_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds of answering on, without readiness, after SIGTERM.")
    ] = 2.0
    stuck_s: Annotated[
        float, Meta(ge=0, le=3600, description="A run that takes longer makes the process not live; 0: never.")
    ] = 60.0
    work_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Seconds that one picture, or one run, may take; then its request gets 504 and its thread is "
            "replaced. 0: for ever.",
        ),
    ] = 30.0
    load_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds that loading one model may take; then it is refused. 0: no limit."),
    ] = 600.0
    watch_s: Annotated[
        float, Meta(ge=0, le=3600, description="Look for new versions in the folder so often, in seconds; 0: never.")
    ] = 5.0
    api_keys: Annotated[
        str,
        Meta(description="Keys, one of which every request must bring, with commas; or @FILE with one per line."),
    ] = ""
    admin_keys: Annotated[
        str, Meta(description="The same for loading and unloading models, which without it is off.")
    ] = ""
    tls_certificate: Annotated[
        str,
        Meta(description="File of a certificate and its chain (PEM): HTTP and gRPC speak TLS, and nothing else."),
    ] = ""
    tls_key: Annotated[str, Meta(description="File of its key (PEM, without a password).")] = ""
    tls_clients: Annotated[
        str, Meta(description="File of authorities (PEM), one of which every client's certificate must be from.")
    ] = ""
    log: Annotated[Literal["text", "json"], Meta(description="Form of the log: for people, or an object a line.")] = (
        "text"
    )
    access_log: Annotated[bool, Meta(description="Log a line for every request.")] = False
    pixels: Annotated[
        Literal["fast", "exact"],
        Meta(description="`fast` decodes and resizes the quick way, `exact` as the checkpoint was evaluated (Pillow)."),
    ] = "fast"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from `ZOOSERVE_*`.

    Raises:
        SettingError: naming the variable, its value and what was expected.
    """
    given = {}
    for name, kind in get_type_hints(Settings, include_extras=True).items():
        value = environment.get(PREFIX + name.upper(), "").strip()
        if value and not is_service_link(PREFIX + name.upper(), value):
            try:
                given[name] = msgspec.convert(value, kind, strict=False)
            except msgspec.ValidationError:
                raise SettingError(f"{PREFIX}{name.upper()}={value}: expected {expected(kind)}.") from None
    return Settings(**given)


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is not the user's: Kubernetes sets it in every container, for a Service of this name."""
    if name == "PORT" or (name.startswith(PREFIX) and name.endswith("_PORT")):
        return bool(_LINK.fullmatch(value.strip()) or _LINK_NAME.fullmatch(name))
    return bool(_LINK_NAME.fullmatch(name))


def remarks(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Lines for the log about variables that look like settings and are none."""
    known = [PREFIX + name.upper() for name in get_type_hints(Settings)]
    others = {PREFIX + name for name in _NO_SETTINGS}
    links, lines = [], []
    for name, value in sorted(environment.items()):
        if is_service_link(name, value):
            links.append(name)
        elif name.startswith(PREFIX) and name not in others and name not in known:
            lines += [f"{name} is ignored: there is no such setting. Is {near} meant?" for near in _near(name, known)]
    if links:
        lines.insert(
            0,
            f"Ignored, as Kubernetes sets them for a Service: {', '.join(links)}. "
            "`enableServiceLinks: false` in the pod's specification turns them off.",
        )
    return lines


def _near(name: str, known: list[str]) -> list[str]:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.85)


def table(environment: Mapping[str, str] = os.environ) -> list[tuple[str, str, str, str]]:
    """Name, default, current value and meaning of every setting, for people."""
    current = read_settings(environment)
    rows = []
    for field in msgspec.structs.fields(Settings):
        meta = field.type.__metadata__[0]
        value = getattr(current, field.name)
        rows.append((PREFIX + field.name.upper(), str(field.default), str(value), str(meta.description)))
    return rows
