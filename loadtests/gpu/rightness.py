"""Step 1: whether the CUDA provider computes what the CPU does, and on what machine all this is."""

import subprocess
from functools import partial
from pathlib import Path

import numpy as np

from loadtests.gpu.bench import Bench
from loadtests.gpu.engine import Model, Session, difference, need_cuda, scores_apart
from loadtests.gpu.plan import Plan

_SAID = ("Model name", "CPU(s)", "Thread(s) per core", "Socket(s)", "NUMA node(s)", "L3")  # of lscpu
_ROWS = 4
_APART = 0.05  # of scores; more, and the service would refuse the model, too
_CONVOLUTION = """
<ir_version: 8, opset_import: ["": 18]>
convolution (float[1, 1, 3, 3] x) => (float[1, 1, 2, 2] y)
<float[1, 1, 2, 2] weights = {1, 2, 3, 4}> { y = Conv(x, weights) }
"""


class WrongError(ArithmeticError):
    """The provider computes something else."""


def measure(bench: Bench, plan: Plan) -> None:
    """Look at the machine, the smallest convolution, and each model."""
    bench.off_gpu().check("-", "processor", _processor)
    bench.check("-", "driver", lambda: ", ".join(f"{key} {value}" for key, value in bench.gpu.about().items()))
    need_cuda(plan.device)
    bench.check("-", "convolution", _convolution)
    for name in plan.models:
        bench.check(name, "answers of CUDA and of the CPU", partial(_answers, Path(plan.root), name))


def _processor() -> str:
    done = subprocess.run(["lscpu"], capture_output=True, text=True, check=True, env={"LC_ALL": "C"})  # noqa: S607
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    return "; ".join(line for line in lines if line.startswith(_SAID))


def _convolution() -> str:
    from onnx.parser import parse_model  # noqa: PLC0415 - the serving install does not contain it

    session = Session(parse_model(_CONVOLUTION).SerializeToString(), "cuda")
    x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    expected = np.array([[[[27, 37], [57, 67]]]], np.float32)
    found = session.run({"x": x})["y"]
    if not np.allclose(found, expected, rtol=1e-2):
        raise WrongError(f"{session.provider} answers {found.ravel().tolist()}, not {expected.ravel().tolist()}")
    return f"{session.provider} computes it rightly"


def _answers(root: Path, name: str) -> str:
    model = Model(root, name)
    inputs = model.inputs(_ROWS)
    with model.lanes((_ROWS,)) as lanes:
        given = lanes.run(inputs)
    expected = Session(model.path, "cpu").run(inputs)
    if not scores_apart(expected, given) <= _APART:  # NaN is wrong, too
        raise WrongError(difference(expected, given))
    return difference(expected, given)
