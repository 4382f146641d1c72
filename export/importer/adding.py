"""The steps of `zooserve add`: propose a card, choose its normalisation, then export the model and publish its card.

`commands.add` calls them.
"""

import contextlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import msgspec

from export.importer import proof, trial
from export.importer.beside import CONFIG, PREPROCESSOR, read_beside
from export.importer.checkpoint import draft_architecture, draft_caffe, draft_darknet, draft_ultralytics
from export.importer.draft import Draft, Finding, draft_onnx
from export.importer.hub import DETECTORS, draft_timm, draft_transformers
from export.importer.images import draft_image
from export.importer.options import ImportOptions
from export.importer.photos import inputs
from export.importer.tensors import draft_tensors
from export.importer.toml import to_toml
from export.kinds import advice, kind_of
from export.pipeline import export_model
from zoo import catalog
from zoo.card import Name
from zoo.errors import CardError, ExportError
from zoo.model_card import AnyCard, ModelCard, read_model_card, require_images
from zoo.store import Store

_CHECKPOINTS = {".pt", ".pth", ".safetensors", ".bin"}
_PUBLISHED = {"onnx", "yolo_onnx"}  # families whose graphs come from other exporters
_NO_NAME = re.compile("[^a-z0-9_.-]+")


def name_of(file: Path) -> str:
    """Make a model's name of a file's.

    Raises:
        CardError: it has no letter or digit that a model's name may have.
    """
    name = _NO_NAME.sub("_", file.stem.lower()).strip("_.-")
    if not name:
        raise CardError(f"{file}: no name for the model can be made of the file's: say one, such as --name my_model")
    return name


def check_name(name: str, target: Path, store: Store, *, replace: bool) -> None:
    """Check that the card of a model called `name` may be written to `target`, and the model into the store.

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
    held = store.path(name, "1")
    if held.exists() and not target.exists() and not replace:
        raise CardError(f"{held} holds a model already: say another --name, or --yes to write over it")


def propose(
    file: Path,
    stated: ImportOptions,
    scratch: Path,
    *,
    family: str | None,
    architecture: str | None,
    cfg: Path | None,
    prototxt: Path | None = None,
    sample: Path | None = None,
) -> Draft:
    """Propose the card of a file: a library's checkpoint, Darknet's or Caffe's weights, or ONNX.

    Raises:
        ExportError, CardError: the file, or what is stated about it, cannot be used; the message says why.
    """
    if stated.task == "tensors":
        return draft_tensors(file, stated, sample)
    if stated.task == "image":
        return draft_image(file, stated)
    if family == "ultralytics":
        return draft_ultralytics(file, stated, scratch)
    if architecture is not None:
        return draft_architecture(file, architecture, family, stated)
    if cfg is not None:
        return draft_darknet(file, cfg, stated)
    suffix = file.suffix.lower()
    if suffix == ".weights":
        raise ExportError(f"{file}: Darknet's weights need their cfg: --cfg {file.stem}.cfg")
    if prototxt is not None:
        return draft_caffe(file, prototxt, stated)
    if suffix == ".caffemodel":
        raise ExportError(f"{file}: Caffe's weights need their deploy file: --prototxt {file.stem}.prototxt")
    if suffix in {".pdmodel", ".pdiparams"}:
        raise ExportError(
            f'{file}: Paddle\'s files need a card, whose sources are both (`family = "paddle"`, as '
            f"{catalog.paths()['picodet_s_416']} has it); or convert them with paddle2onnx and add the ONNX file"
        )
    if suffix in _CHECKPOINTS:
        return _propose_checkpoint(file, stated, scratch)
    return draft_onnx(file, stated, scratch)


def _propose_checkpoint(file: Path, stated: ImportOptions, scratch: Path) -> Draft:
    """Propose the card of a checkpoint by what lies beside it, which names its network."""
    beside = read_beside(file)
    if beside.architecture:
        return draft_timm(file, beside, stated, scratch)
    if beside.transformers in DETECTORS:
        return draft_transformers(file, beside, stated, scratch)
    if beside.transformers:
        raise ExportError(
            f"{file}: {CONFIG} beside it says that it is a {beside.transformers} of transformers, which is none of "
            f"those that are read here: {', '.join(DETECTORS)}. Export it as ONNX first (`optimum-cli export onnx "
            f"--model FOLDER OUT`) and add that; what {CONFIG} and {PREPROCESSOR} beside it say is taken"
        )
    if kind_of(file) not in {"", "torch"}:
        raise ExportError(f"{file}: {advice(file)}")
    raise ExportError(
        f"{file}: a checkpoint holds weights, but not the network: say --architecture, such as resnet50 "
        "(`zooserve list torchvision` shows all), or --family ultralytics, or export it as ONNX first"
    )


def settle(draft: Draft, photos: Sequence[Path], on_step: Callable[[str], None]) -> dict[str, float]:
    """Choose by trial, in place: the normalisation, and whether images may run in one batch.

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
    card, network, alone = proof.build_free(require_images(draft.card), files)
    tried = {}
    if len(draft.candidates) > 1:
        on_step(f"{name}: trying {len(draft.candidates)} normalisations")
        tried = trial.try_normalisations(card, network, classes, draft.candidates, photos)
        best, others = trial.choose(tried, draft.candidates)
        if nothing := trial.undecided(tried):
            best = next(iter(draft.candidates))  # the most usual
        card = msgspec.structs.replace(card, normalise=draft.candidates[best])
        known = "tried: the network recognises most with it"
        if nothing:
            known = "undecided: the network recognised nothing with any of them; this is a guess, give --mean and --std"
        elif others:
            known = f"tried: as good as {' and '.join(others)}, and more usual; --mean and --std say otherwise"
        chosen = Finding("pixels", best, known)
        draft.findings = [chosen if finding.what == "pixels" else finding for finding in draft.findings]
    if published:
        on_step(f"{name}: asking for photos alone and together")
        card, unproven = proof.prove(card, network, files, inputs(card.recipe, photos), classes)
        alone = alone or unproven
    if alone:
        draft.findings.append(Finding("batch", "images run one by one", alone))
    draft.card = card
    return tried


def publish(
    draft: Draft,
    file: Path,
    target: Path,
    store: Store,
    *,
    scratch: Path,
    accepted: Collection[str],
    ask: Callable[[Store], bytes],
    on_step: Callable[[str], None],
) -> tuple[Path, bytes]:
    """Export the model into a scratch store and ask it; then publish it, and write its card and its labels.

    Args:
        draft: of the card.
        file: that was added.
        target: path of the card.
        store: where the model is published.
        scratch: an empty folder for the model until it has answered.
        accepted: SPDX identifiers of the licences that were accepted by name.
        ask: given a store with the model alone, returns its answer.
        on_step: told the name of each step as it begins.

    Returns:
        The folder of the model, and its answer.

    Raises:
        ZooError: as `export_model`; card, labels and folder are as they were before then.
    """
    card = draft.card
    if _own_labels(card):
        card = msgspec.structs.replace(card, labels=str(Path(card.labels).absolute()))
    labels = target.with_suffix(Path(card.labels).suffix) if _own_labels(card) else None
    comments = [f"Written by `zooserve add {file.name}`. Known from:"]
    comments += [f"  {finding.what}: {' '.join(finding.known_from.split())}" for finding in draft.findings]
    trial_card, trial_store = scratch / target.name, Store(scratch / "models")
    trial_card.write_text(to_toml(card, comments), encoding="utf-8")
    done = export_model(
        read_model_card(trial_card),
        trial_store,
        accepted=accepted,
        on_step=lambda step: on_step(f"{card.name}: {step}"),
    )
    answered = ask(trial_store)
    contents: dict[Path, bytes] = {}
    if isinstance(card, ModelCard) and labels is not None:
        contents[labels] = Path(card.labels).read_bytes()
        card = msgspec.structs.replace(card, labels=labels.name)
    sources = {
        name: msgspec.structs.replace(source, file=_pointer(Path(source.file or ""), target.parent))
        for name, source in card.sources.items()
    }
    contents[target] = to_toml(msgspec.structs.replace(card, sources=sources), comments).encode()
    with _staged(contents) as write:
        folder = store.publish(done.card, {name: done.folder / name for name in done.card.files})
        write()
    return folder, answered


@contextlib.contextmanager
def _staged(contents: Mapping[Path, bytes]) -> Iterator[Callable[[], None]]:
    """Write files beside their places; what is yielded moves them there. Where it is not called, nothing stays."""
    staged = {path.with_name(f".{path.name}.new"): path for path in contents}
    try:
        for new, path in staged.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(contents[path])
        yield lambda: _move(staged)
    finally:
        for new in staged:
            new.unlink(missing_ok=True)


def _move(files: Mapping[Path, Path]) -> None:
    for old, new in files.items():
        old.replace(new)


def _own_labels(card: AnyCard) -> TypeGuard[ModelCard]:
    """Whether a card names a file of labels, and not those of the zoo."""
    return isinstance(card, ModelCard) and Path(card.labels).suffix in {".txt", ".json"}


def _pointer(file: Path, folder: Path) -> str:
    """Return a path relative to the card's folder for what lies under the folder's parent, so that both can move."""
    here = folder.resolve()
    return os.path.relpath(file, here) if file.is_relative_to(here.parent) else str(file)
