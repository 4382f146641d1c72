"""All settings of a server, read from the environment once at start. `zooserve serve --help` lists them."""

import os
from collections.abc import Mapping
from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from service.options import expected, from_text
from zoo.variables import PREFIX, Unknown, is_service_link, unknown


class SettingError(Exception):
    """An environment variable whose value is out of range, with its name and what was expected."""


class Settings(Struct, frozen=True):
    """Every field is the environment variable `ZOOSERVE_<FIELD>`."""

    models: Annotated[str, Meta(description="The folder of exported models.")] = "models"
    load: Annotated[str, Meta(description="Names of the models to serve, with commas; empty: all that are there.")] = ""
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt"],
        Meta(
            description="Where to run; `auto` takes CUDA if there is a GPU; if another is not available, the server "
            "does not start. CUDA_VISIBLE_DEVICES chooses the GPUs."
        ),
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
    fronts: Annotated[
        int,
        Meta(
            ge=-1,
            le=64,
            description="Processes that speak HTTP and gRPC, before those that run the models; 0: one does all; "
            "-1: on a GPU a third of the cores, else 0.",
        ),
    ] = -1
    engines: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Processes behind fronts that run the models, each on a GPU or on its share of the cores; "
            "0: one for each GPU, or one.",
        ),
    ] = 0
    threads: Annotated[
        int, Meta(ge=0, le=256, description="Worker threads of a process; 0: its share of the cores.")
    ] = 0
    run_threads: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="Threads of a run on a CPU that is alone; 0: as many as were measured to pay.",
        ),
    ] = 0
    plugins: Annotated[
        Literal["auto", "off"],
        Meta(
            description="Kernels of other libraries (packages onnxruntime_ep_...) on a CPU; auto: where they are "
            "measured to be faster and answer as they should."
        ),
    ] = "auto"
    wide_mb: Annotated[
        float,
        Meta(ge=0, le=1_000_000, description="Most memory of a model's further sessions, for runs on several threads."),
    ] = 1000.0
    memory_mb: Annotated[
        float,
        Meta(
            ge=0,
            le=10_000_000,
            description="Memory for models, shared by all processes; others are loaded when they are asked for. "
            "0: all models are loaded at the start.",
        ),
    ] = 0.0
    gpu_memory_mb: Annotated[float, Meta(ge=0, le=10_000_000, description="The same on each GPU.")] = 0.0
    pin: Annotated[
        str, Meta(description="Models that stay loaded within a budget, with commas; each task's default always does.")
    ] = ""
    model_idle_s: Annotated[
        float, Meta(ge=0, le=1e7, description="Seconds after which an idle model is unloaded, unless pinned; 0: never.")
    ] = 0.0
    max_batch: Annotated[
        int,
        Meta(ge=0, le=256, description="The most images in one run; 0: what was fastest when the model was loaded."),
    ] = 0
    prefer: Annotated[
        Literal["latency", "throughput"],
        Meta(
            description="What a measured batch size is for: `latency` runs more images at once only where each becomes "
            "clearly cheaper, `throughput` as many as are cheapest."
        ),
    ] = "latency"
    max_queue: Annotated[int, Meta(ge=1, le=100_000, description="Unanswered images of a model; more get 429.")] = 256
    timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000, description="Deadline of a request.")] = 30_000
    max_body_mb: Annotated[float, Meta(ge=0.001, le=1024, description="Largest body; larger ones get 413.")] = 32.0
    max_megapixels: Annotated[float, Meta(ge=0.001, le=1000, description="Largest image; larger ones get 413.")] = 50.0
    max_images: Annotated[int, Meta(ge=1, le=1000, description="Most images in one request.")] = 32
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
        Meta(ge=0.001, le=1_000_000, description="Bodies of all current requests; more get 503 before they are read."),
    ] = 512.0
    max_pixels_mb: Annotated[
        float,
        Meta(
            ge=0.001,
            le=1_000_000,
            description="Pixels of images that are answered in parts (tiles, crops); more get 429. One always fits.",
        ),
    ] = 1000.0
    cors_origins: Annotated[
        str,
        Meta(description="Origins whose pages may use the server from a browser, with commas; `*`: all; empty: none."),
    ] = ""
    drain_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds after SIGTERM in which it still answers, but is not ready.")
    ] = 2.0
    stuck_s: Annotated[
        float, Meta(ge=0, le=3600, description="A run that takes longer makes the process not live; 0: never.")
    ] = 60.0
    work_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Seconds that one image, or one run, may take; then its request gets 504 and its thread is "
            "replaced. 0: for ever.",
        ),
    ] = 30.0
    load_s: Annotated[
        float,
        Meta(ge=0, le=86_400, description="Seconds that loading one model may take; then it is refused. 0: no limit."),
    ] = 600.0
    watch_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds between two looks for new versions in the folder; 0: never.")
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

    @property
    def processes(self) -> int:
        """How many processes speak HTTP and gRPC."""
        return self.fronts if self.fronts > 0 else self.workers

    @property
    def max_body_bytes(self) -> int:
        """Bytes of the largest body."""
        return int(self.max_body_mb * 1e6)

    @property
    def max_pixels(self) -> int:
        """Pixels of the largest image."""
        return int(self.max_megapixels * 1e6)

    @property
    def on_demand(self) -> bool:
        """Whether models are loaded when they are asked for."""
        return bool(self.memory_mb or self.gpu_memory_mb or self.model_idle_s)


def names_in(text: str) -> list[str]:
    """Return the names in a setting, which are separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


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
                given[name] = from_text(value, kind)
            except msgspec.ValidationError:
                raise SettingError(f"{PREFIX}{name.upper()}={value}: expected {expected(kind)}.") from None
    return Settings(**given)


def remarks(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return lines for the log about variables that look like settings and are not."""
    lines = [str(variable) for variable in _unknown(environment)]
    if links := [name for name, value in sorted(environment.items()) if is_service_link(name, value)]:
        lines.insert(
            0,
            f"Ignored, as Kubernetes sets them for a Service: {', '.join(links)}. "
            "`enableServiceLinks: false` in the pod's specification turns them off.",
        )
    return lines


def refuse_unprotected(environment: Mapping[str, str] = os.environ, *, reached_by_others: bool = False) -> None:
    """Refuse to start if a variable that looks like protection is not a setting: the server would be unprotected.

    Args:
        environment: all variables.
        reached_by_others: whether other machines reach the server. Then the variable of clients' key is also taken for
            a misspelt list of keys.

    Raises:
        SettingError: the message names the variables, without their values.
    """
    wrong = [(variable.name, variable.near) for variable in _unknown(environment) if variable.protects]
    if reached_by_others and only_clients_key(environment):
        wrong.append((f"{PREFIX}API_KEY", f"{PREFIX}API_KEYS"))
    if wrong:
        listed = "; ".join(f"{name}: is {near} meant?" if near else name for name, near in wrong)
        raise SettingError(
            f"a variable that looks like a key or like TLS is not a setting, so the server would run without it: "
            f"{listed} Rename or unset it. Keys are {PREFIX}API_KEYS and {PREFIX}ADMIN_KEYS, "
            f"TLS is {PREFIX}TLS_CERTIFICATE, {PREFIX}TLS_KEY and {PREFIX}TLS_CLIENTS."
        )


def only_clients_key(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether clients' key is set, but not the server's keys: perhaps the one was meant as the other."""
    return bool(environment.get(f"{PREFIX}API_KEY")) and not environment.get(f"{PREFIX}API_KEYS", "").strip()


def _unknown(environment: Mapping[str, str]) -> list[Unknown]:
    return unknown(environment, [name.upper() for name in get_type_hints(Settings)])
