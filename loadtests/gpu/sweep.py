"""The bare session measured: every batch size in several ways, then what provider options change."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loadtests.gpu.bench import Bench, Timing
from loadtests.gpu.session import CPU, CUDA, TENSORRT, Device, Fixed, Images, Model, Variant

_IN_FLIGHT = 2
_NHWC = {"prefer_nhwc": "1"}
_GRAPH = {"enable_cuda_graph": "1"}
VARIANTS: dict[Device, tuple[Variant, ...]] = {
    "cuda": (
        Variant("cudnn_conv_algo_search=HEURISTIC", CUDA, {"cudnn_conv_algo_search": "HEURISTIC"}),
        Variant("cudnn_conv_algo_search=DEFAULT", CUDA, {"cudnn_conv_algo_search": "DEFAULT"}),
        Variant("prefer_nhwc", CUDA, _NHWC),
        Variant("use_tf32=0", CUDA, {"use_tf32": "0"}),
        Variant("CUDA graphs", CUDA, _GRAPH, graph=True),
        Variant("fp16", CUDA, half=True),
        Variant("fp16, prefer_nhwc", CUDA, _NHWC, half=True),
        Variant("fp16, CUDA graphs", CUDA, _GRAPH, half=True, graph=True),
        Variant("fp16, prefer_nhwc, CUDA graphs", CUDA, _NHWC | _GRAPH, half=True, graph=True),
        Variant("TensorRT", TENSORRT),
        Variant("TensorRT fp16", TENSORRT, {"trt_fp16_enable": "1"}),
    ),
    "cpu": (Variant("CUDA graphs", CUDA, _GRAPH, graph=True), Variant("fp16", CPU, half=True)),
}


def sweep(bench: Bench, model: Model, batches: Sequence[int]) -> None:
    """Time every batch size with the provider's own defaults (cuDNN's search is EXHAUSTIVE then)."""
    try:
        bench.check_time()
        session = model.session()
    except Exception as error:  # out of memory, or out of time
        bench.fail("session", model.card.name, "session.run", "-", error)
        return
    for batch in batches:
        _ways(bench, model, session, model.images(batch))


def variants(bench: Bench, model: Model, batches: Sequence[int]) -> None:
    """Time some batch sizes with each variant, and compare what it answers with what the defaults answer."""
    name = model.card.name
    photos = model.images(max(batches))
    expected: list[npt.NDArray[Any]] = []
    for variant in VARIANTS[model.device]:
        try:
            bench.check_time()
            expected = expected or model.session().run(None, {"images": photos})
            session = model.session(variant)
            note = difference(expected, Fixed(session, photos, model.device, graph=variant.graph).run())
        except Exception as error:  # whatever the provider or the conversion raises
            bench.fail("session", name, variant.name, "-", error)
            continue
        for batch in batches:
            work = _fixed(bench, model, session, batch, variant.graph, note)
            bench.attempt("session", name, variant.name, f"batch {batch}", work)


def difference(expected: Sequence[npt.NDArray[Any]], given: Sequence[npt.NDArray[Any]]) -> str:
    """Say how far outputs are apart: the largest difference of fractions, the share of the pixels."""
    apart = []
    for one, other in zip(expected, given, strict=True):
        if one.dtype == np.uint8:
            most = np.abs(one.astype(int) - other).max()
            apart.append(f"{np.mean(one != other):.2%} of the pixels, by up to {most}")
        elif one.ndim == 2 and one.dtype == np.float32:
            apart.append(f"{np.abs(one - other).max():.4f}")
    return f"answers differ by {', '.join(apart)}" if apart else ""


def _ways(bench: Bench, model: Model, session: ort.InferenceSession, images: Images) -> None:
    batch = len(images)

    def plain() -> Any:
        return session.run(None, {"images": images})

    def fixed(pixels: Images) -> Fixed:
        return Fixed(session, pixels, model.device, graph=False)

    def attempt(way: str, work: Callable[[], Timing]) -> None:
        bench.attempt("session", model.card.name, way, f"batch {batch}", work)

    attempt("session.run", lambda: bench.measure(plain, batch))
    attempt(f"session.run, {_IN_FLIGHT} in flight", lambda: bench.measure(plain, batch, _IN_FLIGHT))
    attempt("IOBinding", lambda: bench.measure(fixed(images).run, batch))
    if model.device == "cuda":
        attempt("IOBinding, pinned memory", lambda: bench.measure(fixed(_pinned(images)).run, batch))
    attempt("IOBinding, nothing copied", lambda: bench.measure(fixed(images).compute, batch))


def _fixed(
    bench: Bench, model: Model, session: ort.InferenceSession, batch: int, graph: bool, note: str
) -> Callable[[], Timing]:
    def work() -> Timing:
        timing = bench.measure(Fixed(session, model.images(batch), model.device, graph=graph).run, batch)
        return replace(timing, note=note)

    return work


def _pinned(images: Images) -> Images:
    """Return a copy in memory that the GPU reads directly."""
    import torch  # noqa: PLC0415 - only for this, and only where it is

    pinned: Images = torch.from_numpy(images).pin_memory().numpy()
    return pinned
