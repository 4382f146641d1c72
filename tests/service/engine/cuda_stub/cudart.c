/* CUDA's runtime, as far as ONNX Runtime's CUDA provider calls it. With simulation.c it is libcudart.so.13.
 *
 * Which calls a capture forbids is said in "Prohibited and Unhandled Operations" of CUDA's programming guide: those that
 * may wait for the device. Copies happen at once, and their time is counted for the stream.
 */
#include "stub.h"
#include <stdlib.h>
#include <string.h>

struct dim3 { unsigned x, y, z; };

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
    *left = *total = stub_memory_free();
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

/* ---- kernels ---- */

int cudaLaunchKernel(const void *kernel, struct dim3 grid, struct dim3 block, void **arguments, size_t shared,
                     void *stream)
{
    ENTER();
    COUNT(kernels);
    return 0;
}

int __cudaLaunchKernel(void *kernel, struct dim3 grid, struct dim3 block, void **arguments, size_t shared, void *stream)
{
    return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

int cudaLaunchKernelExC(const void *configuration, const void *kernel, void **arguments)
{
    ENTER();
    COUNT(kernels);
    return 0;
}

/* What nvcc's code calls around a launch: the configuration is kept between the two. */
static __thread struct { struct dim3 grid, block; size_t shared; void *stream; } pushed;

unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared, void *stream)
{
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared = shared;
    pushed.stream = stream;
    return 0;
}

int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared, void **stream)
{
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *stream = pushed.stream;
    return 0;
}

void **__cudaRegisterFatBinary(void *binary)
{
    static void *handle;
    return &handle;
}

void __cudaRegisterFatBinaryEnd() {}
void __cudaUnregisterFatBinary() {}
void __cudaRegisterFunction() {}
void __cudaRegisterVar() {}

int __cudaGetKernel(const void **kernel, const void *function)
{
    *kernel = function;
    return 0;
}

struct function_attributes { size_t shared, constant, local; int most_threads, rest[29]; };

int cudaFuncGetAttributes(struct function_attributes *attributes, const void *function)
{
    ENTER();
    *attributes = (struct function_attributes){.most_threads = 1024};
    return 0;
}

int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int size, size_t shared,
                                                           unsigned flags)
{
    ENTER();
    *blocks = 2;
    return 0;
}

/* ---- devices ---- */

int cudaGetDeviceCount(int *count)
{
    ENTER();
    *count = stub_gpus;
    return stub_gpus ? 0 : stub_error(ERROR_NO_DEVICE);
}

int cudaGetDevice(int *device)
{
    ENTER();
    *device = stub_device();
    return 0;
}

int cudaSetDevice(int device)
{
    ENTER();
    return stub_set_device(device);
}

int cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    ENTER();
    switch (attribute) {
    case 16: *value = 132; break;    /* multiprocessors */
    case 75: *value = 9; break;      /* compute capability 9.0 */
    case 76: *value = 0; break;
    case 97: *value = 232448; break; /* shared memory per block, at most */
    default: *value = 1;
    }
    return 0;
}

/* cudaDeviceProp, 1008 bytes: the fields that ONNX Runtime reads, and the room between them. */
struct properties {
    char name[256], ids[32];
    size_t memory, shared_per_block;
    int registers_per_block, warp;
    size_t pitch;
    int most_threads, most_block[3], most_grid[3];
    size_t constant;
    int major, minor;
    size_t alignment[2];
    int multiprocessors, textures[43];
    int concurrent_kernels, before_cache[8];
    int cache, persisting_cache, threads_per_multiprocessor, before_shared[4];
    size_t shared_per_multiprocessor;
    int registers_per_multiprocessor, before_optin[9];
    size_t shared_per_block_optin;
    char rest[328];
};
_Static_assert(sizeof(struct properties) == 1008 && offsetof(struct properties, major) == 360
               && offsetof(struct properties, multiprocessors) == 384
               && offsetof(struct properties, concurrent_kernels) == 560
               && offsetof(struct properties, cache) == 596
               && offsetof(struct properties, shared_per_multiprocessor) == 624
               && offsetof(struct properties, shared_per_block_optin) == 672,
               "as in driver_types.h of CUDA 13");

int cudaGetDeviceProperties(struct properties *properties, int device)
{
    ENTER();
    if (device < 0 || device >= stub_gpus)
        return stub_error(ERROR_INVALID_DEVICE);
    *properties = (struct properties){
        .name = "Stub GPU", .memory = stub_memory_free(), .shared_per_block = 49152, .registers_per_block = 65536,
        .warp = 32, .most_threads = 1024, .most_block = {1024, 1024, 64}, .most_grid = {2147483647, 65535, 65535},
        .major = 9, .multiprocessors = 132, .concurrent_kernels = 1, .cache = 60 << 20,
        .threads_per_multiprocessor = 2048, .shared_per_multiprocessor = 233472,
        .registers_per_multiprocessor = 65536, .shared_per_block_optin = 232448,
    };
    return 0;
}

int cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return 0;
}

int cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return 0;
}

/* The driver's functions are not there: 1 is cudaDriverEntryPointSymbolNotFound. */
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags,
                                     int *status)
{
    ENTER();
    *function = NULL;
    if (status)
        *status = 1;
    return 0;
}

int cudaGetLastError(void)
{
    return stub_last_error(1);
}

int cudaPeekAtLastError(void)
{
    return stub_last_error(0);
}

const char *cudaGetErrorName(int code)
{
    return stub_error_name(code);
}

const char *cudaGetErrorString(int code)
{
    return stub_error_text(code);
}

NOTHING(cudaFuncSetAttribute)
NOTHING(cudaKernelSetAttributeForDevice)
NOTHING(cudaLaunchCooperativeKernel)
NOTHING(cudaLibraryGetKernel)
NOTHING(cudaLibraryLoadData)
NOTHING(cudaLibraryUnload)
NOTHING(cudaMemPoolDestroy)
NOTHING(cudaMemPoolGetAttribute)
NOTHING(cudaMemPoolSetAttribute)
NOTHING(cudaMemPoolTrimTo)
NOTHING(cudaSetDeviceFlags)
