"""Step 4: what options of the CUDA provider change, one by one, and how many lanes pay."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from loadtests.gpu.bench import Bench, Timing
from loadtests.gpu.engine import Lanes, Model, Tensors, Tuning, difference, need_cuda
from loadtests.gpu.plan import Plan

_SIZES = (1, 32)
_TUNINGS = {
    "as it is": Tuning(),
    "EXHAUSTIVE search": Tuning(cudnn_search="EXHAUSTIVE"),
    "NHWC": Tuning(nhwc=True),
    "fused bias": Tuning(fuse_bias=True),
    "CUDA graphs": Tuning(cuda_graphs=True),
    "NHWC, fused bias, CUDA graphs": Tuning(nhwc=True, fuse_bias=True, cuda_graphs=True),
}
_MOST_LANES = 3
_IN_FLIGHT = 2  # runs for each lane


def measure(bench: Bench, plan: Plan) -> None:
    """Time the options with each model, then the lanes with the last options that worked."""
    need_cuda(plan.device)
    for name in plan.models:
        _options(bench, Model(Path(plan.root), name), (1, 4) if plan.quick else _SIZES)


def _options(bench: Bench, model: Model, sizes: tuple[int, ...]) -> None:
    inputs = {size: model.inputs(size) for size in sizes}
    expected: Tensors = {}
    works = Tuning()
    for way, tuning in _TUNINGS.items():
        try:
            with model.lanes(sizes, tuning) as lanes:
                given = lanes.run(inputs[sizes[-1]])
                expected = expected or given
                note = difference(expected, given)
                for size in lanes.sizes:
                    bench.attempt(model.name, way, f"batch {size}", partial(_run, bench, lanes, inputs[size], note))
            works = tuning
        except Exception as error:  # an option that this graph does not bear
            bench.fail(model.name, way, "-", error)
    for count in range(1, _MOST_LANES + 1):
        work = partial(_lanes, bench, model, works, sizes[-1], count)
        bench.attempt(model.name, "lanes", f"{count}, batch {sizes[-1]}", work)


def _run(bench: Bench, lanes: Lanes, inputs: Tensors, note: str) -> Timing:
    return replace(bench.measure(lambda: lanes.run(inputs), len(inputs["images"])), note=note)


def _lanes(bench: Bench, model: Model, tuning: Tuning, size: int, count: int) -> Timing:
    inputs = model.inputs(size)
    with model.lanes((size,), tuning, count) as lanes:
        return bench.measure(lambda: lanes.run(inputs), size, threads=_IN_FLIGHT * count)
