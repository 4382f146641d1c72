"""Step 3: batch sizes repeated and alternating, in one session and with a session for each.

ONNX Runtime's convolutions remember the plan of the last shape only, so a session that runs several plans anew.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from loadtests.gpu.bench import Bench
from loadtests.gpu.engine import Model, Tensors, need_cuda
from loadtests.gpu.plan import Plan

_SIZES = (1, 8, 32)


def measure(bench: Bench, plan: Plan) -> None:
    """Time the classifier."""
    need_cuda(plan.device)
    model = Model(Path(plan.root), plan.models[0])
    sizes = _SIZES[:2] if plan.quick else _SIZES
    _ways(bench, model, "one session", sizes, model.session().run)
    with model.lanes(sizes) as lanes:
        _ways(bench, model, "a session for each size", sizes, lanes.run)


def _ways(bench: Bench, model: Model, way: str, sizes: tuple[int, ...], run: Callable[[Tensors], Tensors]) -> None:
    batches = [model.inputs(size) for size in sizes]

    def all_in_turn() -> None:
        for batch in batches:
            run(batch)

    for size, batch in zip(sizes, batches, strict=True):
        timed = partial(bench.measure, partial(run, batch), size)
        bench.attempt(model.name, f"{way}, repeated", f"batch {size}", timed)
    load = f"batches {', '.join(map(str, sizes))} in turn"
    bench.attempt(model.name, f"{way}, alternating", load, lambda: bench.measure(all_in_turn, sum(sizes)))
