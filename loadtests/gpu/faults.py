"""Step 8: what the engine makes of a GPU without memory, and of a broken context. In processes that end with it."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from loadtests.gpu.bench import Bench, reason
from loadtests.gpu.engine import BrokenDeviceError, Lanes, Model, Stream, need_cuda
from loadtests.gpu.plan import STUB, Plan

_LEFT = 64 << 20  # bytes of the GPU's memory
_SIZES = (1, 32)
_LAUNCH_FAILED = 719
# A kernel that stops at once. The driver compiles it for its GPU.
_TRAP = b"""
.version 6.3
.target sm_75
.address_size 64
.visible .entry broken() { trap; }
"""


class UnexpectedError(Exception):
    """The engine did not raise what it should."""


def measure(bench: Bench, plan: Plan) -> None:
    """Do one of the two."""
    need_cuda(plan.device)
    model = Model(Path(plan.root), plan.models[0])
    if plan.part == "memory":
        bench.check(model.name, "out of memory", lambda: _memory(model))
    else:
        bench.check(model.name, "a broken context", lambda: _context(model, stub=bench.card == STUB))


def _memory(model: Model) -> str:
    """Take nearly all memory, load, give it back, load again."""
    runtime = ctypes.CDLL("libcudart.so.13")
    with model.lanes((1,)):  # CUDA's own libraries take their memory now
        free, total, taken = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_void_p()
        _check(runtime.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)))
        _check(runtime.cudaMalloc(ctypes.byref(taken), ctypes.c_size_t(max(0, free.value - _LEFT))))
        try:
            said = _raised(lambda: _hold(model, 32))
        finally:
            _check(runtime.cudaFree(taken))
    with model.lanes(_SIZES) as lanes:
        lanes.run(model.inputs(_SIZES[-1]))
        return f"afterwards batches of {', '.join(map(str, lanes.sizes))} again; with {_LEFT >> 20} MB: {said}"


def _hold(model: Model, copies: int) -> str:
    """Load again and again, and hold what was loaded."""
    sizes: list[tuple[int, ...]] = []
    held: list[Lanes] = []
    try:
        for _ in range(copies):
            held.append(model.lanes((*_SIZES, 256)))
            sizes.append(held[-1].sizes)
    finally:
        for lanes in held:
            lanes.__exit__()
    raise UnexpectedError(f"{copies} copies found memory, for batches of {sizes}")


def _context(model: Model, *, stub: bool) -> str:
    """Let a kernel fail, then run."""
    inputs = model.inputs(1)
    with model.lanes((1,)) as lanes:
        lanes.run(inputs)
        if stub:
            ctypes.CDLL("libcudart.so.13").stub_fail(b"*", _LAUNCH_FAILED, ctypes.c_long(1))
        else:
            _trap()
        start = perf_counter()
        said = _raised(lambda: str(lanes.run(inputs)))
        return f"after {1000 * (perf_counter() - start):.1f} ms: {said}"


def _trap() -> None:
    """Launch the kernel, in the context of CUDA's runtime."""
    stream = Stream(0)  # makes the context this thread's
    driver = ctypes.CDLL("libcuda.so.1")
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    _check(driver.cuModuleLoadData(ctypes.byref(module), _TRAP))
    _check(driver.cuModuleGetFunction(ctypes.byref(function), module, b"broken"))
    _check(driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, ctypes.c_void_p(stream.handle), None, None))


def _raised(work: Callable[[], str]) -> str:
    """What was raised, in words.

    Raises:
        UnexpectedError: nothing was, or not what the engine tells apart.
    """
    try:
        found = work()
    except (BrokenDeviceError, MemoryError) as error:
        return reason(error)
    raise UnexpectedError(f"nothing was raised: {found[:100]}")


def _check(code: int) -> None:
    if code:
        raise RuntimeError(f"CUDA answered {code}")
