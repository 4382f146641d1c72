"""Loads a graph on the lanes of a GPU, as wide and as many as was measured to pay. `model` calls it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import structs

from service.arrays import Tensors
from service.engine.binding import Fill
from service.engine.cuda import Stream, pin
from service.engine.jpegs import JpegDecoder
from service.engine.lanes import Lanes, Sample
from service.engine.profile import GPU_SIZES, JpegRow, Profile, best_batch, best_lanes, best_tuning, measure
from service.engine.profile_cache import key_of, measuring, recall, remember
from service.engine.providers import CUDA, TENSORRT, Tuning
from service.engine.session import Session
from service.models.inputs import recipe_of
from service.models.jpegs import decoding_cores, may_decode, measure_jpegs
from service.settings import Settings
from zoo.served_card import AnyServed, ServedCard

logger = logging.getLogger(__name__)
_STEPS: Mapping[str, Sequence[dict[str, Any]]] = {
    CUDA: (
        {"cudnn_search": "EXHAUSTIVE"},
        {"nhwc": True},
        {"fuse_bias": True},
        {"tf32": True},
        {"cuda_graphs": True},
    ),
    TENSORRT: ({"cuda_graphs": True},),
}
_MOST_LANES = 3
_LARGE = 1 << 20  # bytes
_TENSOR_LANES = 2  # one batch is copied while another computes


def load_lanes(
    card: AnyServed,
    load: Callable[..., Session],
    sample: Sample,
    settings: Settings,
    provider: str,
    device_id: int,
    *,
    images: bool,
    golden: Mapping[str, bytes],
) -> tuple[Profile, Lanes]:
    """Load a graph as it will serve. What is not known from an earlier start is measured first.

    Args:
        card: of the graph.
        load: makes a `Session`; called with `tuning`, `batch` and `stream`.
        sample: makes inputs to measure and to warm up with.
        settings: give the batch size where it is not to be measured, and the number of processes.
        provider: that runs it.
        device_id: of the GPU.
        golden: the files for its self-test, by name.
        images: all inputs have one shape but for the batch, so each batch size has a session with fixed buffers.

    Raises:
        SessionError: ONNX Runtime cannot run the graph as asked.
        MemoryError: there is no memory for a batch of 1.
    """

    def pinned(rows: int) -> Tensors:
        """Inputs that are copied as quickly as those of an image buffer; of small ones it makes no difference."""
        inputs = sample(rows)
        for array in inputs.values():
            if images and array.nbytes >= _LARGE:
                pin(array)
        return inputs

    def make_fill(stream: Stream) -> Fill:
        return JpegDecoder(recipe_of(card), stream).fill

    def make(tuning: Tuning, sizes: Sequence[int], *, jpegs: bool = False) -> Lanes:
        def load_size(size: int, stream: Stream | None) -> Session:
            return load(tuning=tuning, batch=size, stream=stream)

        return Lanes(
            load_size,
            sizes if images else (),
            sample,
            graphs=tuning.cuda_graphs,
            device_id=device_id,
            make_fill=make_fill if jpegs else None,
        )

    choice = may_decode(card, settings)
    key = key_of(
        card.sha256,
        provider,
        settings.workers,
        settings.max_batch,
        settings.prefer,
        card.precision == "fp16",
        choice and decoding_cores(settings),
        device_id=device_id,
    )
    with measuring():
        profile = recall(key, Profile)
        if profile is None:
            tuning = Tuning(fp16=card.precision == "fp16")
            if images:
                tuning = best_tuning(make, pinned, tuning, _STEPS[provider])
            profile = _measure(make, tuning, pinned, settings, images=images)
            if choice:
                profile = structs.replace(profile, jpegs=_measure_jpegs(make, profile, card, golden, settings))
            remember(key, profile)
    lanes = make(profile.tuning, _sizes(profile.max_batch), jpegs=profile.jpegs is not None and profile.jpegs.used)
    _add(lanes, profile.max_runs)
    lanes.freeze()
    if profile.jpegs is not None:  # the memory for a decoder may be missing now
        profile = structs.replace(profile, jpegs=structs.replace(profile.jpegs, used=lanes.decodes))
    largest = lanes.sizes[-1] if images else profile.max_batch
    return structs.replace(profile, max_batch=min(largest, profile.max_batch), max_runs=lanes.count), lanes


def _measure(
    make: Callable[[Tuning, Sequence[int]], Lanes], tuning: Tuning, sample: Sample, settings: Settings, *, images: bool
) -> Profile:
    fixed = settings.max_batch
    with make(tuning, _sizes(fixed or GPU_SIZES[-1])) as lanes:
        lanes.add()
        sizes = lanes.sizes or _sizes(fixed or GPU_SIZES[-1])
        seconds = measure(lanes.run, sample, sizes)
        max_batch = sizes[-1] if fixed else best_batch(seconds, settings.prefer)
        count = best_lanes(lanes, sample(max_batch), _MOST_LANES) if images else _TENSOR_LANES
    return Profile(seconds, max_batch, count, tuning, "setting" if fixed else "measured")


def _measure_jpegs(
    make: Callable[..., Lanes], profile: Profile, card: AnyServed, golden: Mapping[str, bytes], settings: Settings
) -> JpegRow | None:
    assert isinstance(card, ServedCard)  # noqa: S101 - for others there is no choice
    with make(profile.tuning, sorted({1, profile.max_batch}), jpegs=True) as lanes:
        try:
            lanes.add()
            return measure_jpegs(lanes, card, golden, settings, lanes.sizes[-1]) if lanes.decodes else None
        except MemoryError as error:
            logger.warning("JPEGs of %s are not decoded on the GPU: %s", card.name, error)
            return None


def _add(lanes: Lanes, count: int) -> None:
    """Add lanes while there is memory; one at least."""
    for _ in range(count):
        try:
            lanes.add()
        except MemoryError as error:
            if not lanes.count:
                raise
            logger.warning("no memory for more lanes than %d: %s", lanes.count, error)
            return


def _sizes(largest: int) -> tuple[int, ...]:
    """The sizes of batches up to the largest."""
    return (*(size for size in GPU_SIZES if size < largest), largest)
