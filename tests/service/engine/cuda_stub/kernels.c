/* CUDA's runtime, as far as ONNX Runtime's CUDA provider calls it: kernels, of which none computes anything, and what
 * there is to know of a device. A part of libcudart.so.13.
 */
#include "stub.h"

struct dim3 { unsigned x, y, z; };

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
        .name = "Stub GPU", .memory = stub_memory, .shared_per_block = 49152, .registers_per_block = 65536,
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
NOTHING(cudaSetDeviceFlags)
