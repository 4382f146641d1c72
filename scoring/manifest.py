"""`_manifest.json`: what was run on a folder of results, how long, and how many images failed."""

from typing import Literal

import msgspec
from msgspec import Struct, structs

from scoring.spec import Spec
from scoring.storage import Folder, StorageError, public_address

NAME = "_manifest.json"
State = Literal["running", "complete", "incomplete"]


class Run(Struct):
    """One call of the command.

    Attributes:
        started: ISO 8601, UTC.
        zooserve: version.
        ray: the address of the cluster; empty: this process alone.
        workers, threads: how many actors, and engine threads of each; 0: all cores of this machine.
        seconds: that it took, loading included.
        images, failed: rows that it added, and how many of them are errors.
        state: `running` where it was killed.
    """

    started: str
    zooserve: str
    ray: str = ""
    workers: int = 1
    threads: int = 0
    seconds: float = 0.0
    images: int = 0
    failed: int = 0
    state: State = "running"


class Manifest(Struct):
    """What a folder of results holds.

    Attributes:
        source: of the images; see `public_address`.
        spec: what was asked of them; `out` is shown in the same way. It and `models` may differ by machine and are left
            out of comparisons.
        images: rows in all files.
        failed: rows that are errors.
        planned: images that were found.
        state: `complete` if every image that was found has its row.
        runs: the calls of the command, in their order.
        column: of a list, that has the addresses; empty without columns, or where an older version began.
    """

    source: str
    spec: Spec
    images: int = 0
    failed: int = 0
    planned: int = 0
    state: State = "running"
    runs: list[Run] = []
    column: str = ""


def open_manifest(out: Folder, source: str, column: str, spec: Spec) -> Manifest:
    """Read the manifest of a folder of results, or begin one. It holds no password and no token of an address.

    Raises:
        StorageError: the folder has results of another source, column, model, task or options; the message names what
            differs.
    """
    source, spec = public_address(source), structs.replace(spec, out=out.address)
    if NAME not in out.names():
        if any(not name.startswith("_") for name in out.names()):
            raise StorageError(f"{out.address} is not empty and has no {NAME}: name another folder for the results")
        return Manifest(source, spec, column=column)
    try:
        with out.open(NAME) as file:
            found = msgspec.json.decode(file.read(), type=Manifest)
    except msgspec.DecodeError as error:
        raise StorageError(f"{out.address}/{NAME}: {error}. Name another folder for the results.") from error
    found.source = public_address(found.source)  # older versions kept it whole
    found.spec = structs.replace(found.spec, out=public_address(found.spec.out))
    before, now = _compared(found.source, found.column or column, found.spec), _compared(source, column, spec)
    if differs := [name for name in now if before[name] != now[name]]:
        listed = ", ".join(f"{name} {before[name]!r}, not {now[name]!r}" for name in differs)
        raise StorageError(f"{out.address} holds results of {listed}. Name another folder for the results.")
    return found


def write_manifest(out: Folder, manifest: Manifest) -> None:
    """Write the manifest in the place of the one that is there."""
    with out.writing(NAME) as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def _compared(source: str, column: str, spec: Spec) -> dict[str, object]:
    names = ("model", "version", "sha256", "task", "options", "pixels", "form")
    return {"source": source, "column": column} | {name: getattr(spec, name) for name in names}
