/* CUDA's errors: their names and texts, as cudaGetErrorName and cudaGetErrorString give them, and which of them break a
 * context. A part of libcudart.so.13.
 */
#include "stub.h"

static const struct { int code, breaks; const char *name, *text; } errors[] = {
    {0, 0, "cudaSuccess", "no error"},
    {1, 0, "cudaErrorInvalidValue", "invalid argument"},
    {2, 0, "cudaErrorMemoryAllocation", "out of memory"},
    {4, 1, "cudaErrorCudartUnloading", "driver shutting down"},
    {46, 1, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, 0, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {101, 0, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {209, 0, "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"},
    {214, 1, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {220, 1, "cudaErrorNvlinkUncorrectable", "uncorrectable NVLink error detected during the execution"},
    {226, 1, "cudaErrorContained", "Invalid access of peer GPU memory over nvlink or a hardware error"},
    {401, 0, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {700, 1, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {701, 0, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {702, 1, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {709, 1, "cudaErrorContextIsDestroyed", "context is destroyed"},
    {710, 1, "cudaErrorAssert", "device-side assert triggered"},
    {714, 1, "cudaErrorHardwareStackError", "hardware stack error"},
    {715, 1, "cudaErrorIllegalInstruction", "an illegal instruction was encountered"},
    {716, 1, "cudaErrorMisalignedAddress", "misaligned address"},
    {717, 1, "cudaErrorInvalidAddressSpace", "operation not supported on global/shared address space"},
    {718, 1, "cudaErrorInvalidPc", "invalid program counter"},
    {719, 1, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {721, 1, "cudaErrorTensorMemoryLeak", "tensor memory not completely freed"},
    {805, 1, "cudaErrorMpsConnectionFailed",
     "MPS client failed to connect to the MPS control daemon or the MPS server"},
    {806, 1, "cudaErrorMpsRpcFailure", "the remote procedural call between the MPS server and the MPS client failed"},
    {807, 1, "cudaErrorMpsServerNotReady", "MPS server is not ready to accept new MPS client requests"},
    {808, 1, "cudaErrorMpsMaxClientsReached",
     "the hardware resources required to create MPS client have been exhausted"},
    {809, 1, "cudaErrorMpsMaxConnectionsReached",
     "the hardware resources required to support device connections have been exhausted"},
    {810, 1, "cudaErrorMpsClientTerminated", "the MPS client has been terminated by the server"},
    {900, 0, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {901, 0, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {999, 1, "cudaErrorUnknown", "unknown error"},
};

static int index_of(int code)
{
    int last = sizeof errors / sizeof *errors - 1;
    for (int i = 0; i < last; i++)
        if (errors[i].code == code)
            return i;
    return last;
}

const char *stub_error_name(int code)
{
    return errors[index_of(code)].name;
}

const char *stub_error_text(int code)
{
    return errors[index_of(code)].text;
}

int stub_error_breaks(int code)
{
    int found = index_of(code);
    return errors[found].code == code && errors[found].breaks;
}
