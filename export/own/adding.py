"""The steps of `zooserve add`: propose a card, choose what is open, write and export it, ask it for an answer.

The answer comes from `zooserve predict`, so it is the very one that a server would give. `export.own.command` calls.
"""

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

import click
import msgspec

from export.own import proof, trial
from export.own.checkpoint import draft_architecture, draft_darknet, draft_ultralytics
from export.own.draft import Draft, Fact, Wishes, draft_onnx
from export.own.photos import inputs
from export.own.tensors import draft_tensors
from export.own.toml import to_toml
from export.pipeline import export_model
from zoo import catalog
from zoo.card import ModelCard, Name, of_pictures, read_model_card
from zoo.errors import CardError, ExportError
from zoo.store import Store

__all__ = ["Wishes", "answer", "check_name", "in_bytes", "name_of", "propose", "publish", "settle"]
_CHECKPOINTS = {".pt", ".pth", ".safetensors", ".bin"}
_PUBLISHED = {"onnx", "yolo_onnx"}  # families whose graphs are not ours
_NO_NAME = re.compile("[^a-z0-9_.-]+")


def name_of(file: Path) -> str:
    """Make a model's name of a file's."""
    return _NO_NAME.sub("_", file.stem.lower()).strip("_.-")


def in_bytes(wished: dict[str, Any]) -> dict[str, Any]:
    """Bring `mean` and `std` to 0..255; where `std` is below 1 they are of pixels in 0..1."""
    mean, std = wished["mean"], wished["std"]
    if std is None or max(std) >= 1:
        return wished
    scaled = (values and tuple(round(255 * value, 3) for value in values) for values in (mean, std))
    return wished | dict(zip(("mean", "std"), scaled, strict=True))


def check_name(name: str, target: Path, *, replace: bool) -> None:
    """Check that the card of a model called `name` may be written to `target`.

    Raises:
        CardError: its name is none for a model, or that of another, or it exists and is not to be replaced.
    """
    try:
        msgspec.convert(name, type=Name)
    except msgspec.ValidationError as error:
        raise CardError(
            f"{name!r} is no name: use at most 64 small letters, digits, `_`, `.`, `-`; --name says it"
        ) from error
    known = catalog.paths().get(name)
    if known is not None and known.resolve() != target.resolve():
        raise CardError(f"there is a model {name!r} already, {known}: say another --name")
    if target.exists() and not replace:
        raise CardError(f"{target} exists: say another --name, or --yes to write over it")


def propose(
    file: Path,
    wishes: Wishes,
    scratch: Path,
    *,
    family: str | None,
    architecture: str | None,
    cfg: Path | None,
    sample: Path | None = None,
) -> Draft:
    """Propose the card of a file: a library's checkpoint, Darknet's weights, or ONNX.

    Raises:
        ExportError, CardError: the file, or what is said of it, does not do; the message says why.
    """
    if wishes.task == "tensors":
        return draft_tensors(file, wishes, sample)
    if family == "ultralytics":
        return draft_ultralytics(file, wishes, scratch)
    if architecture is not None:
        return draft_architecture(file, architecture, family, wishes)
    if cfg is not None:
        return draft_darknet(file, cfg, wishes)
    if file.suffix == ".weights":
        raise ExportError(f"{file}: Darknet's weights need their cfg: --cfg {file.stem}.cfg")
    if file.suffix in _CHECKPOINTS:
        raise ExportError(
            f"{file}: a checkpoint holds weights, but not the network: say --architecture, such as resnet50 "
            "(`zooserve list torchvision` shows all), or --family ultralytics, or export it as ONNX first"
        )
    return draft_onnx(file, wishes, scratch)


def settle(draft: Draft, photos: Sequence[Path], on_step: Callable[[str], None]) -> dict[str, float]:
    """Settle by trial what is open, in place: the normalisation, and whether images may run together.

    Returns:
        How each normalisation was judged, best first; nothing where only one was possible.

    Raises:
        ExportError: the network cannot be built, or the images of a batch are not independent of each other.
    """
    published = draft.card.family in _PUBLISHED
    if not published and len(draft.candidates) < 2:
        return {}
    name, classes = draft.card.name, len(draft.labels)
    files = {name: Path(source.file or "") for name, source in draft.card.sources.items()}
    on_step(f"{name}: building")
    card, network, alone = proof.build_free(of_pictures(draft.card), files)
    tried = {}
    if len(draft.candidates) > 1:
        on_step(f"{name}: trying {len(draft.candidates)} normalisations")
        tried = trial.try_normalisations(card, network, classes, draft.candidates, photos)
        best, others = trial.choose(tried, draft.candidates)
        card = msgspec.structs.replace(card, normalise=draft.candidates[best])
        known = "tried: it sees most through this"
        if others:
            known = f"tried: as good as {' and '.join(others)}, and more usual; --mean and --std say otherwise"
        draft.facts = [Fact("pixels", best, known) if fact.what == "pixels" else fact for fact in draft.facts]
    if published:
        on_step(f"{name}: asking for photos alone and together")
        card, unproven = proof.prove(card, network, files, inputs(card.recipe, photos), classes)
        alone = alone or unproven
    if alone:
        draft.facts.append(Fact("batch", "images run one by one", alone))
    draft.card = card
    return tried


def publish(
    draft: Draft, file: Path, target: Path, store: Store, accepted: Collection[str], on_step: Callable[[str], None]
) -> Path:
    """Write the card, and its labels beside it, and export the model. Returns its folder.

    Raises:
        ZooError: as `export_model`; files that were not there before are gone then.
    """
    card = draft.card
    labels = target.with_suffix(".txt") if isinstance(card, ModelCard) and card.labels.endswith(".txt") else None
    new = [path for path in (target, labels) if path and not path.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(card, ModelCard) and labels is not None:
        if Path(card.labels).resolve() != labels.resolve():
            shutil.copyfile(card.labels, labels)
        card = msgspec.structs.replace(card, labels=labels.name)
    sources = {
        name: msgspec.structs.replace(source, file=_pointer(Path(source.file or ""), target.parent))
        for name, source in card.sources.items()
    }
    comments = [f"Written by `zooserve add {file.name}`. Known from:"]
    comments += [f"  {fact.what}: {fact.known}" for fact in draft.facts]
    try:
        text = to_toml(msgspec.structs.replace(card, sources=sources), comments)
        target.write_text(text, encoding="utf-8")
        name = card.name
        done = export_model(
            read_model_card(target), store, accepted=accepted, on_step=lambda step: on_step(f"{name}: {step}")
        )
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    return done.folder


def answer(name: str, photo: Path, picture: Path, store: Store, *, as_json: bool) -> bytes:
    """Let `zooserve predict` print and draw an answer; as JSON it is returned instead.

    The command is found by entry point, as the command line finds it: `export` knows no `service`.
    """
    (entry,) = entry_points(group="zooserve.commands", name="predict")
    command = cast(click.Command, entry.load())
    arguments = [name, str(photo), "--annotate", str(picture), "--models", str(store.root)]
    printed = io.BytesIO()
    stdout = io.TextIOWrapper(printed, encoding="utf-8")
    with contextlib.redirect_stdout(stdout) if as_json else contextlib.nullcontext():
        try:
            command.main([*arguments, *(["--json"] if as_json else [])], standalone_mode=False)
        except SystemExit as status:
            if status.code:
                sys.exit(status.code)
    stdout.flush()
    return printed.getvalue()


def _pointer(file: Path, folder: Path) -> str:
    """Return a path relative to the card's folder for what lies under the folder's parent, so that both can move."""
    here = folder.resolve()
    return os.path.relpath(file, here) if file.is_relative_to(here.parent) else str(file)
