"""A model's variant of lower precision: convert the published fp32 graph, compare, and publish as `<name>-<precision>`.

`zooserve export NAME --precision` calls it, after the fp32 model itself.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import onnx
import onnxruntime

from export import agreement, parity
from export.batch import name_batch
from export.golden import Photo, golden_answer
from export.pipeline import open_photo
from export.precision import to_fp16, to_int8
from export.provenance import Precision, variant_fingerprint, variant_name, versions_now
from export.reference import Images, Outputs
from zoo.catalog import fetch_photos
from zoo.errors import ExportError
from zoo.files import sha256_of
from zoo.model_card import ModelCard
from zoo.recipe import apply_exact
from zoo.served_card import CPU, CUDA, Agreement, ServedCard, require_images
from zoo.store import Store

_TIMED_RUNS = 15
_WIDE = {"boxes", "keypoints", "coefficients", "prototypes"}  # outputs whose values are not within 0..1


@dataclass(frozen=True)
class Variant:
    """What was published, where, and what it is worth beside its fp32 model.

    Attributes:
        base, card: the card of the fp32 model and of the variant.
        folder: of the variant.
        milliseconds: per image on one thread of this CPU: fp32's and the variant's, medians of runs in turns.
    """

    base: ServedCard
    card: ServedCard
    folder: Path
    milliseconds: tuple[float, float]


def export_variant(
    card: ModelCard, precision: Precision, store: Store, *, on_step: Callable[[str], None] = lambda _: None
) -> Variant:
    """Convert the published fp32 graph of a model, and publish the variant if it stays within the card's bound.

    Of the zoo's photos that are not the model's golden ones, every other calibrates an int8 variant. A variant is
    compared with fp32 on the golden ones and on the rest, and with itself: in batches it must answer as to each alone.
    An fp16 variant is for GPUs and is run on one where there is one; else its card says that it ran on the CPU.

    Raises:
        StoreError: the fp32 model is not in the store, or damaged.
        SourceError: a photo could not be fetched.
        ExportError: the graph does not convert, its answers are too far from fp32's, or another model has its name.
    """
    base = require_images(store.verify(card.name, card.version))
    own_name = variant_name(card.name, precision)
    held = next((entry.card for entry in store.entries() if entry.name == own_name), None)
    if held is not None and not (isinstance(held, ServedCard) and held.agreement is not None):
        raise ExportError(f"{own_name} in the store is a model of its own, and no variant of {card.name}: rename it")
    source = store.path(card.name, card.version)
    on_step("fetch")
    goldens = [open_photo(Path(one.photo).stem, source / "golden" / one.photo) for one in base.golden]
    calibration, comparison = divide(fetch_photos(), {one.sha256 for one in base.golden})
    calibrating, comparing = _pixels(card, calibration), _pixels(card, [*goldens, *comparison])
    on_step("convert")
    try:
        model = to_fp16(source / "model.onnx") if precision == "fp16" else to_int8(source / "model.onnx", calibrating)
        name_batch(model)
        onnx.checker.check_model(model)
    except Exception as error:  # the converters raise errors of many kinds
        raise ExportError(f"{card.name}: its graph does not convert to {precision}: {error}") from error
    with TemporaryDirectory(prefix="zooserve-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save_model(model, path)
        on_step("compare")
        sessions = [_session(source / "model.onnx", card, "fp32"), _session(path, card, precision)]
        judged = _session(path, card, precision, CUDA) if precision == "fp16" else sessions[1]
        provider = judged.get_providers()[0]  # the CPU's where there is no GPU
        expected, actual = ([_run(session, image) for image in comparing] for session in (sessions[0], judged))
        kept, shift = agreement.measure(expected, actual, card.recipe)
        if kept < card.bound.agreement or shift > card.bound.shift:
            raise ExportError(
                f"{card.name}: in {precision} it keeps {kept:.1%} of fp32's sure answers and shifts them by "
                f"{shift:.3f}; the card's bound is {card.bound.agreement:.1%} and {card.bound.shift:g}, so nothing "
                "was published"
            )
        on_step("parity")
        alone = f"{precision} in onnxruntime {onnxruntime.__version__}, each photo alone"
        own = parity.measure(_tolerant(card, base), path, alone, comparing, actual, provider=provider)
        on_step("publish")
        unexpecting = msgspec.structs.replace(card, expect=())  # what fp32 had to find; a variant is held to its bound
        answers = zip(goldens, actual[: len(goldens)], strict=True)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        served = msgspec.structs.replace(
            base,
            name=own_name,
            title=f"{base.title}, {precision}",
            precision=precision,
            task_default=False,
            sha256=sha256_of(path),
            size=path.stat().st_size,
            parity=own,
            golden=tuple(golden_answer(unexpecting, base.labels, photo, outputs) for photo, outputs in answers),
            agreement=Agreement(base.name, len(comparing), kept, shift, card.bound, provider),
            provenance=msgspec.structs.replace(
                base.provenance,
                exported_at=now,
                exported_with=base.provenance.exported_with | versions_now(base.provenance.exported_with),
                made_from=variant_fingerprint(card, base, precision),
            ),
        )
        target = store.publish(served, {"model.onnx": path} | {f"golden/{p.path.name}": p.path for p in goldens})
        return Variant(base, served, target, _race(sessions, comparing))


def divide(photos: Mapping[str, Path], golden: Collection[str]) -> tuple[list[Photo], list[Photo]]:
    """Divide photos in two: those that calibrate, and others to compare on. Golden ones, by sha256, are in neither.

    A file that has several names counts once.
    """
    by_hash = {sha256_of(path): (name, path) for name, path in photos.items()}
    rest = [open_photo(name, path) for digest, (name, path) in by_hash.items() if digest not in golden]
    return rest[::2], rest[1::2]


def _tolerant(card: ModelCard, base: ServedCard) -> ModelCard:
    """The card with tolerances for sums in lower precision, whose order may depend on the batch."""
    tolerance = {output.name: 1.0 if output.name in _WIDE else 0.05 for output in base.outputs}
    return msgspec.structs.replace(card, tolerance=tolerance)


def _pixels(card: ModelCard, photos: list[Photo]) -> Images:
    return np.stack([apply_exact(card.recipe, photo.image) for photo in photos])


def _session(path: Path, card: ModelCard, precision: str, provider: str = CPU) -> onnxruntime.InferenceSession:
    """Open a graph on a provider, or on the CPU where ONNX Runtime has not that one."""
    providers = dict.fromkeys((provider, CPU)) if provider in onnxruntime.get_available_providers() else (CPU,)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # a refusal is raised, it need not be printed too
    try:
        return onnxruntime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's errors have no common base of use
        raise ExportError(f"{card.name}: ONNX Runtime cannot run the graph in {precision}: {error}") from error


def _run(session: onnxruntime.InferenceSession, image: Images) -> Outputs:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": image[None]}), strict=True))


def _race(sessions: list[onnxruntime.InferenceSession], images: Images) -> tuple[float, float]:
    """Time one image on each session in turns, and return the medians in milliseconds."""
    times: list[list[float]] = [[], []]
    for run in range(_TIMED_RUNS):
        for own, session in zip(times, sessions, strict=True):
            start = time.perf_counter()
            session.run(None, {"images": images[run % len(images)][None]})
            own.append(1000 * (time.perf_counter() - start))
    first, second = (float(np.median(own)) for own in times)
    return first, second
