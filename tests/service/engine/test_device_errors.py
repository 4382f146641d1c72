"""What the texts of ONNX Runtime mean. They are real, shortened; `test_cuda_errors.py` lets it write some anew."""

import pytest

from service.engine.device_errors import BrokenDeviceError, kind_of, told_apart

FAIL = "[ONNXRuntimeError] : 1 : FAIL : "
NODE = FAIL + "Non-zero status code returned while running Conv node. Name:'node_conv2d' Status Message: "
PLACE = " ; GPU=0 ; hostname=h ; file=gpu_data_transfer.cc ; line=91 ; expr=cudaMemcpyAsync(dst, src, bytes); "
ARENA = "bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) "

LOST = {
    4: ("cudaErrorCudartUnloading", "driver shutting down"),
    46: ("cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"),
    214: ("cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"),
    220: ("cudaErrorNvlinkUncorrectable", "uncorrectable NVLink error detected during the execution"),
    226: ("cudaErrorContained", "Invalid access of peer GPU memory over nvlink or a hardware error"),
    700: ("cudaErrorIllegalAddress", "an illegal memory access was encountered"),
    702: ("cudaErrorLaunchTimeout", "the launch timed out and was terminated"),
    709: ("cudaErrorContextIsDestroyed", "context is destroyed"),
    710: ("cudaErrorAssert", "device-side assert triggered"),
    714: ("cudaErrorHardwareStackError", "hardware stack error"),
    715: ("cudaErrorIllegalInstruction", "an illegal instruction was encountered"),
    716: ("cudaErrorMisalignedAddress", "misaligned address"),
    717: ("cudaErrorInvalidAddressSpace", "operation not supported on global/shared address space"),
    718: ("cudaErrorInvalidPc", "invalid program counter"),
    719: ("cudaErrorLaunchFailure", "unspecified launch failure"),
    721: ("cudaErrorTensorMemoryLeak", "tensor memory not completely freed"),
    805: ("cudaErrorMpsConnectionFailed", "MPS client failed to connect to the MPS control daemon or the MPS server"),
    806: ("cudaErrorMpsRpcFailure", "the remote procedural call between the MPS server and the MPS client failed"),
    807: ("cudaErrorMpsServerNotReady", "MPS server is not ready to accept new MPS client requests"),
    808: ("cudaErrorMpsMaxClientsReached", "the hardware resources required to create MPS client have been exhausted"),
    809: (
        "cudaErrorMpsMaxConnectionsReached",
        "the hardware resources required to support device connections have been exhausted",
    ),
    810: ("cudaErrorMpsClientTerminated", "the MPS client has been terminated by the server"),
    999: ("cudaErrorUnknown", "unknown error"),
}
NOT_LOST = {
    1: ("cudaErrorInvalidValue", "invalid argument"),
    40: ("cudaErrorNone", "no error of CUDA"),
    100: ("cudaErrorNoDevice", "no CUDA-capable device is detected"),
    101: ("cudaErrorInvalidDevice", "invalid device ordinal"),
    200: ("cudaErrorInvalidKernelImage", "device kernel image is invalid"),
    209: ("cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"),
    299: ("cudaErrorNone", "no error of CUDA"),
    400: ("cudaErrorInvalidResourceHandle", "invalid resource handle"),
    701: ("cudaErrorLaunchOutOfResources", "too many resources requested for launch"),
    900: ("cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"),
    901: ("cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"),
    7000: ("cudaErrorNone", "no error of CUDA"),
}


@pytest.mark.parametrize(
    ("code", "name", "text", "kind"),
    [
        *[(code, *rest, BrokenDeviceError) for code, rest in LOST.items()],
        *[(code, *rest, None) for code, rest in NOT_LOST.items()],
        (2, "cudaErrorMemoryAllocation", "out of memory", MemoryError),
    ],
)
def test_errors_of_cuda(code, name, text, kind):
    assert kind_of(f"{FAIL}CUDA failure {code}: {text}{PLACE}") is kind
    assert kind_of(f"{NODE}CUDA failure {code}: {text}{PLACE}") is kind
    assert kind_of(f"{NODE}CUDA error {name}:{text}") is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (ARENA + "Failed to allocate memory for requested buffer of size 3840", MemoryError),
        (ARENA + "Available memory of 0 is smaller than requested bytes of 512", MemoryError),
        (FAIL + f"CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED{PLACE}", MemoryError),
        (FAIL + f"CUDNN failure 4003: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED{PLACE}", MemoryError),
        (FAIL + f"CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED{PLACE}", MemoryError),
        (FAIL + f"CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED{PLACE}", MemoryError),
        (FAIL + f"CUFFT failure 2: CUFFT_ALLOC_FAILED{PLACE}", MemoryError),
        ("std::bad_alloc", MemoryError),
        ("bad allocation", MemoryError),
        ("TensorRT: IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (out of memory)", MemoryError),
        ("TensorRT: Error Code 2: OutOfMemory (Requested size was 4096 bytes.)", MemoryError),
        ("TensorRT: Error Code 1: Cuda Runtime (an illegal memory access was encountered)", BrokenDeviceError),
        # An arena that asks a lost GPU for more.
        (f"{ARENA}CUDA failure 700: an illegal memory access was encountered{PLACE}", BrokenDeviceError),
        # Neither: an arena's other errors, a capture that was spoiled, a convolution that is not supported.
        ("bfc_arena.cc:12 void onnxruntime::BFCArena::Free(void*) it != chunks.end() was false", None),
        (FAIL + f"CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED{PLACE}", None),
        (f"{NODE}CUDNN_FE failure 11: CUDNN_BACKEND_API_FAILED{PLACE}", None),
        (FAIL + "Got invalid dimensions for input: images for the following indices", None),
        # A graph's author chooses names.
        (NODE.replace("node_conv2d", "CUDA failure 700: out of memory") + "Filter shape is wrong", None),
    ],
)
def test_other_errors(text, kind):
    assert kind_of(text) is kind


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("out of memory"), MemoryError),
        (RuntimeError("CUDA failure 719: unspecified launch failure"), BrokenDeviceError),
        (RuntimeError("another"), RuntimeError),
        (KeyboardInterrupt("out of memory"), KeyboardInterrupt),
    ],
)
def test_the_text_is_kept(raised, expected):
    with pytest.raises(expected, match=str(raised)) as error, told_apart():
        raise raised
    assert type(error.value) is expected
