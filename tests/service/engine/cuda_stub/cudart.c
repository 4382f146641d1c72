/* CUDA's runtime, as far as ONNX Runtime's CUDA provider calls it: memory, streams, events, captures and graphs. A part
 * of libcudart.so.13.
 *
 * Which calls a capture forbids is said in "Prohibited and Unhandled Operations" of CUDA's programming guide: those
 * that may wait for the device. Copies happen at once, and their time is counted for the stream.
 */
#include "stub.h"
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

int cudaMalloc(void **pointer, size_t bytes)
{
    ENTER_FORBIDDEN();
    return stub_allocate(pointer, bytes);
}

int cudaMallocFromPoolAsync(void **pointer, size_t bytes, void *pool, void *stream)
{
    ENTER();
    return stub_allocate(pointer, bytes);
}

int cudaFree(void *pointer)
{
    ENTER_FORBIDDEN();
    stub_free(pointer);
    return 0;
}

int cudaFreeAsync(void *pointer, void *stream)
{
    ENTER();
    stub_free(pointer);
    return 0;
}

int cudaMallocHost(void **pointer, size_t bytes)
{
    ENTER_FORBIDDEN();
    return (*pointer = calloc(1, bytes)) ? 0 : stub_error(ERROR_NO_MEMORY);
}

int cudaHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    ENTER_FORBIDDEN();
    return (*pointer = calloc(1, bytes)) ? 0 : stub_error(ERROR_NO_MEMORY);
}

int cudaFreeHost(void *pointer)
{
    ENTER_FORBIDDEN();
    free(pointer);
    return 0;
}

int cudaHostRegister(void *pointer, size_t bytes, unsigned flags)
{
    ENTER_FORBIDDEN();
    return 0;
}

int cudaHostUnregister(void *pointer)
{
    ENTER_FORBIDDEN();
    return 0;
}

int cudaMemGetInfo(size_t *left, size_t *total)
{
    ENTER();
    *left = stub_memory_free();
    *total = stub_memory;
    return 0;
}

int cudaMemcpy(void *to, const void *from, size_t bytes, int kind)
{
    ENTER_FORBIDDEN();
    struct stream *stream = stub_stream(NULL);
    memcpy(to, from, bytes);
    stub_copy(stream, bytes);
    stub_wait(stream->ready_at);
    return 0;
}

int cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, void *stream)
{
    ENTER();
    if (stub_copies)
        memcpy(to, from, bytes);
    stub_copy(stub_stream(stream), bytes);
    return 0;
}

int cudaMemcpy2DAsync(char *to, size_t to_pitch, const char *from, size_t from_pitch, size_t width, size_t height,
                      int kind, void *stream)
{
    ENTER();
    for (size_t row = 0; row < height; row++)
        memcpy(to + row * to_pitch, from + row * from_pitch, width);
    stub_copy(stub_stream(stream), width * height);
    return 0;
}

int cudaMemcpyFromSymbol(void *to, const void *symbol, size_t bytes, size_t offset, int kind)
{
    ENTER_FORBIDDEN();
    memset(to, 0, bytes);
    return 0;
}

int cudaMemset(void *pointer, int value, size_t bytes)
{
    ENTER_FORBIDDEN();
    memset(pointer, value, bytes);
    return 0;
}

int cudaMemsetAsync(void *pointer, int value, size_t bytes, void *stream)
{
    ENTER();
    memset(pointer, value, bytes);
    return 0;
}

int cudaMemPoolCreate(void **pool, const void *properties)
{
    ENTER();
    *pool = malloc(1);
    return 0;
}

struct pointer_attributes { int type, device; void *device_pointer, *host_pointer; long reserved[8]; };

int cudaPointerGetAttributes(struct pointer_attributes *attributes, void *pointer)
{
    ENTER();
    *attributes = (struct pointer_attributes){2 /* cudaMemoryTypeDevice */, stub_device(), pointer};
    return 0;
}

/* ---- streams and events ---- */

int cudaStreamCreateWithFlags(void **stream, unsigned flags)
{
    ENTER();
    COUNT(streams);
    struct stream *made = *stream = calloc(1, sizeof *made);
    made->device = stub_device();
    return 0;
}

int cudaStreamCreate(void **stream)
{
    return cudaStreamCreateWithFlags(stream, 0);
}

int cudaStreamDestroy(void *stream)
{
    ENTER();
    free(stream);
    return 0;
}

int cudaStreamSynchronize(void *given)
{
    ENTER();
    struct stream *stream = stub_stream(given);
    int error = stub_capture_forbids(stream);
    if (error)
        return error;
    COUNT(synchronisations);
    stub_wait(stream->ready_at);
    stream->run_counted = 0;
    return 0;
}

int cudaDeviceSynchronize(void)
{
    ENTER_FORBIDDEN();
    COUNT(synchronisations);
    stub_wait_for_device();
    return 0;
}

int cudaEventCreateWithFlags(void **event, unsigned flags)
{
    ENTER();
    *event = calloc(1, sizeof(long)); /* when it happens */
    return 0;
}

int cudaEventCreate(void **event)
{
    return cudaEventCreateWithFlags(event, 0);
}

int cudaEventDestroy(void *event)
{
    ENTER();
    free(event);
    return 0;
}

int cudaEventRecord(long *event, void *stream)
{
    ENTER();
    *event = stub_stream(stream)->ready_at;
    return 0;
}

int cudaEventRecordWithFlags(long *event, void *stream, unsigned flags)
{
    return cudaEventRecord(event, stream);
}

int cudaEventSynchronize(long *event)
{
    ENTER();
    COUNT(synchronisations);
    stub_wait(*event);
    return 0;
}

int cudaEventElapsedTime(float *milliseconds, long *from, long *to)
{
    ENTER();
    *milliseconds = (*to - *from) / 1e3f;
    return 0;
}

int cudaStreamWaitEvent(void *given, long *event, unsigned flags)
{
    ENTER();
    struct stream *stream = stub_stream(given);
    if (*event > stream->ready_at)
        stream->ready_at = *event;
    return 0;
}

int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *argument)
{
    ENTER();
    function(argument);
    return 0;
}

/* ---- captures and graphs ---- */

int cudaStreamBeginCapture(void *stream, enum capture_mode mode)
{
    ENTER();
    return stub_capture_begin(stub_stream(stream), mode);
}

int cudaStreamEndCapture(void *stream, struct graph **graph)
{
    ENTER();
    return stub_capture_end(stub_stream(stream), graph);
}

int cudaStreamIsCapturing(void *given, int *status)
{
    ENTER();
    struct stream *stream = stub_stream(given);
    *status = stream->capturing + stream->spoiled * stream->capturing; /* none, active, invalidated */
    return 0;
}

int cudaGraphInstantiate(struct graph **executable, struct graph *graph, unsigned long long flags)
{
    ENTER();
    *executable = malloc(sizeof *graph);
    **executable = *graph;
    return 0;
}

int cudaGraphDestroy(struct graph *graph)
{
    ENTER();
    free(graph);
    return 0;
}

int cudaGraphExecDestroy(struct graph *executable)
{
    ENTER();
    free(executable);
    return 0;
}

int cudaGraphLaunch(struct graph *executable, void *stream)
{
    ENTER();
    COUNT(graph_launches);
    stub_note_thread(STUB_LAUNCH);
    stub_work(stub_stream(stream), COMPUTE, executable->microseconds);
    return 0;
}

NOTHING(cudaMemPoolDestroy)
NOTHING(cudaMemPoolGetAttribute)
NOTHING(cudaMemPoolSetAttribute)
NOTHING(cudaMemPoolTrimTo)
