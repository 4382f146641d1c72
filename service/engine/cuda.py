"""What the engine asks of CUDA's runtime itself: streams, copies, pinned memory. Called by `lanes`, `binding`, `model`.

ctypes releases the interpreter's lock during a call, which ONNX Runtime's own copies (`update_inplace`,
`copy_outputs_to_cpu`) do not.
"""

import ctypes
import functools
import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from service.arrays import Array, Image
from service.engine.providers import ProviderError
from zoo.extras import install

logger = logging.getLogger(__name__)
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind
_BLOCKING_SYNC = 4  # cudaDeviceScheduleBlockingSync
_NON_BLOCKING = 1  # cudaStreamNonBlocking: its work does not wait for that of the default stream


@functools.cache
def _runtime() -> ctypes.CDLL:
    """The library that ONNX Runtime has loaded, or will.

    Raises:
        OSError: it is not there.
    """
    return ctypes.CDLL("libcudart.so.13")


class Stream:
    """A queue of a GPU's work, in which copies and runs follow each other. Made and used by one thread.

    Args:
        device_id: of the GPU.

    Attributes:
        device: its name for ONNX Runtime.
        handle: the `cudaStream_t`, for ONNX Runtime's option `user_compute_stream`.

    Raises:
        ProviderError: CUDA's runtime cannot be loaded.
        RuntimeError: what CUDA answered, as ONNX Runtime would word it.
    """

    def __init__(self, device_id: int) -> None:
        self.device = ("cuda", device_id)
        stream = ctypes.c_void_p()
        try:
            _check(_runtime().cudaSetDevice(device_id))
        except OSError as error:
            raise ProviderError(f"CUDA's runtime cannot be loaded: {error}. {install('gpu')} installs it.") from error
        # By default a thread that waits for the GPU spins: it would take a core from those that decode.
        _check(_runtime().cudaSetDeviceFlags(_BLOCKING_SYNC))
        _check(_runtime().cudaStreamCreateWithFlags(ctypes.byref(stream), _NON_BLOCKING))
        self.handle = stream.value or 0

    def copy_in(self, address: int, array: Array) -> None:
        """Copy a contiguous array to an address of the GPU. It must not change until `wait` returns."""
        self._copy(address, array.ctypes.data, array.nbytes, _TO_DEVICE)

    def copy_out(self, array: Array, address: int) -> None:
        """Fill a contiguous array from an address of the GPU; it is filled when `wait` returns."""
        self._copy(array.ctypes.data, address, array.nbytes, _TO_HOST)

    def wait(self) -> None:
        """Wait until all is done."""
        _check(_runtime().cudaStreamSynchronize(ctypes.c_void_p(self.handle)))

    def close(self) -> None:
        """Free the stream, once no session uses it."""
        _runtime().cudaStreamDestroy(ctypes.c_void_p(self.handle))

    def _copy(self, to: int, source: int, size: int, kind: int) -> None:
        _check(
            _runtime().cudaMemcpyAsync(
                ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), kind, ctypes.c_void_p(self.handle)
            )
        )


class Captures:
    """Keeps other work away while a CUDA graph is captured.

    ONNX Runtime captures in CUDA's global mode: what any thread of the process does meanwhile that allocates, frees or
    copies with a wait fails, and spoils the capture. Runs of warm sessions with fixed buffers do nothing of that.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._short = self._loads = 0  # that are under way
        self._capturing = False  # or about to, once what is short has ended
        self._thread = threading.local()

    @contextmanager
    def others(self) -> Iterator[None]:
        """While the block runs nothing is captured. It is short; it may be nested, as memory is freed at any time."""
        with self._counted("_short"):
            yield

    @contextmanager
    def loading(self) -> Iterator[None]:
        """The same for what may take minutes: captures wait for it without keeping others waiting."""
        with self._counted("_loads"):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While the block runs, nobody else captures, and no block of `others` or `loading` runs."""
        with self._inside():
            with self._changed:
                self._changed.wait_for(lambda: not (self._capturing or self._loads))
                self._capturing = True
                self._changed.wait_for(lambda: not self._short)
            try:
                yield
            finally:
                with self._changed:
                    self._capturing = False
                    self._changed.notify_all()

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        if getattr(self._thread, "inside", False):
            yield
            return
        with self._inside():
            with self._changed:
                self._changed.wait_for(lambda: not self._capturing)
                setattr(self, kind, getattr(self, kind) + 1)
            try:
                yield
            finally:
                with self._changed:
                    setattr(self, kind, getattr(self, kind) - 1)
                    self._changed.notify_all()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        self._thread.inside = True
        try:
            yield
        finally:
            self._thread.inside = False


CAPTURES = Captures()  # of this process


def pin(rows: Image) -> None:
    """Lock an array's pages, so that the GPU's copy engine reads them directly. Without it copies are slower."""
    try:
        with CAPTURES.others():
            failed = _runtime().cudaHostRegister(ctypes.c_void_p(rows.ctypes.data), ctypes.c_size_t(rows.nbytes), 0)
    except OSError as error:
        logger.warning("images are not kept in pinned memory: %s", error)
        return
    if failed:
        logger.warning("images are not kept in pinned memory: cudaHostRegister answered %d", failed)
        return
    weakref.finalize(rows, _unpin, rows.ctypes.data)


def _unpin(address: int) -> None:
    with CAPTURES.others():
        _runtime().cudaHostUnregister(ctypes.c_void_p(address))


def used_on_gpu(device_id: int) -> int:
    """Return the bytes in use on a GPU, by all processes, as its driver tells; 0 without CUDA."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    try:
        failed = _runtime().cudaSetDevice(device_id) or _runtime().cudaMemGetInfo(
            ctypes.byref(free), ctypes.byref(total)
        )
    except OSError:
        return 0
    return 0 if failed else total.value - free.value


def _check(code: int) -> None:
    if code:
        runtime = _runtime()
        runtime.cudaGetErrorString.restype = ctypes.c_char_p
        runtime.cudaGetLastError()  # else ONNX Runtime's next check would find it
        raise RuntimeError(f"CUDA failure {code}: {runtime.cudaGetErrorString(code).decode()}")
