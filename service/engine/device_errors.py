"""Tells apart what ONNX Runtime's errors mean: no memory, a GPU that is lost, anything else. `session` uses it.

ONNX Runtime's exceptions carry no codes, so their texts are read. They name CUDA's errors in two ways, by the number
after a call and by the name after a kernel's launch; errors of cuBLAS and cuDNN by their status:

    CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=...
    Non-zero status code returned while running Cast node. Name:'n' Status Message: CUDA error cudaErrorAssert:...
    CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=...

A cuBLAS or cuDNN that fails because the GPU is lost says only that it failed; the next call into CUDA says why.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Errors after which every call into CUDA fails until the process is started anew: CUDA's documentation says so of most
# of them ("the process must be terminated and relaunched"). The others are those of a driver, an MPS server or a GPU
# that is gone. https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
_LOST = {
    4: "cudaErrorCudartUnloading",
    46: "cudaErrorDevicesUnavailable",
    214: "cudaErrorECCUncorrectable",
    220: "cudaErrorNvlinkUncorrectable",
    226: "cudaErrorContained",
    700: "cudaErrorIllegalAddress",
    702: "cudaErrorLaunchTimeout",
    709: "cudaErrorContextIsDestroyed",
    710: "cudaErrorAssert",
    714: "cudaErrorHardwareStackError",
    715: "cudaErrorIllegalInstruction",
    716: "cudaErrorMisalignedAddress",
    717: "cudaErrorInvalidAddressSpace",
    718: "cudaErrorInvalidPc",
    719: "cudaErrorLaunchFailure",
    721: "cudaErrorTensorMemoryLeak",
    805: "cudaErrorMpsConnectionFailed",
    806: "cudaErrorMpsRpcFailure",
    807: "cudaErrorMpsServerNotReady",
    808: "cudaErrorMpsMaxClientsReached",
    809: "cudaErrorMpsMaxConnectionsReached",
    810: "cudaErrorMpsClientTerminated",
    999: "cudaErrorUnknown",
}
# How libraries that give neither number nor name, TensorRT among them, say the same.
_LOST_TEXTS = (
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "device-side assert triggered",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "misaligned address",
    "hardware stack error",
    "uncorrectable (?:ECC|NVLink) error",
    "GPU has fallen off the bus",
)
_NO_MEMORY_TEXTS = (
    r"CUDA failure 2:",
    r"cudaErrorMemoryAllocation\b",
    r"out of memory\b",
    r"OutOfMemory\b",  # TensorRT
    r"Failed to allocate memory\b",  # ONNX Runtime's arena
    r"Available memory of \d+ is smaller than requested bytes\b",  # the same, where its size is limited
    r"(?:CUBLAS|CUDNN|CUFFT)\w*_ALLOC(?:ATION)?_FAILED\b",
    r"std::bad_alloc\b",
    r"bad allocation\b",
)
# The first that is found decides. An arena that cannot allocate because the GPU is lost says both.
_RULES = (
    (rf"\bCUDA failure (?:{'|'.join(map(str, _LOST))}):", "lost"),
    (rf"\b(?:{'|'.join(_LOST.values())})\b", "lost"),
    (rf"\b(?:{'|'.join(_LOST_TEXTS)})\b", "lost"),
    (rf"\b(?:{'|'.join(_NO_MEMORY_TEXTS)})", "no memory"),
)
_STATUS = "Status Message: "  # what comes before it may hold names that a graph's author chose


class BrokenDeviceError(Exception):
    """A GPU that this process can no longer use: only a restart helps."""


def kind_of(text: str) -> type[MemoryError | BrokenDeviceError] | None:
    """Say what an error's text means: a `MemoryError`, a `BrokenDeviceError`, or neither."""
    text = text.rpartition(_STATUS)[2]
    for pattern, meaning in _RULES:
        if re.search(pattern, text):
            return BrokenDeviceError if meaning == "lost" else MemoryError
    return None


@contextmanager
def told_apart() -> Iterator[None]:
    """Raise what ONNX Runtime raises as the error that it means.

    Raises:
        MemoryError: there is no memory for this.
        BrokenDeviceError: the GPU is lost.
    """
    try:
        yield
    except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
        if kind := kind_of(str(error)):
            raise kind(str(error)) from error
        raise
