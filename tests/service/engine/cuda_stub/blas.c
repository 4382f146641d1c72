/* cuBLAS and cuBLASLt, and what little is needed of the driver: libcublas.so.13, libcublasLt.so.13, libcuda.so.1 and
 * libcurand.so.10 are all built from this file. Matrices are multiplied in no time.
 */
#include "stub.h"
#include <stdlib.h>

#define STATUS_EXECUTION_FAILED 13

static int status(int error) /* a fault may be a status of cuBLAS; an error of CUDA is none */
{
    return error <= 16 ? error : STATUS_EXECUTION_FAILED;
}

int cublasCreate_v2(void **handle)
{
    COUNT(handles);
    *handle = calloc(1, 64);
    return status(stub_enter(__func__, 1)); /* allocates, which a capture forbids */
}

int cublasLtCreate(void **handle)
{
    *handle = calloc(1, 64);
    return status(stub_enter(__func__, 0));
}

int cublasGetMathMode(void *handle, int *mode)
{
    *mode = 0;
    return 0;
}

const char *cublasGetStatusName(int code)
{
    return code == 3 ? "CUBLAS_STATUS_ALLOC_FAILED" : code == 13 ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS";
}

const char *cublasGetStatusString(int code)
{
    return cublasGetStatusName(code);
}

#define COMPUTE_NOTHING(function) int function() { return status(stub_enter(#function, 0)); }
COMPUTE_NOTHING(cublasDestroy_v2)
COMPUTE_NOTHING(cublasDgeam)
COMPUTE_NOTHING(cublasDgemmBatched)
COMPUTE_NOTHING(cublasDgemmStridedBatched)
COMPUTE_NOTHING(cublasDgemm_v2)
COMPUTE_NOTHING(cublasDgetrfBatched)
COMPUTE_NOTHING(cublasDgetriBatched)
COMPUTE_NOTHING(cublasGemmBatchedEx)
COMPUTE_NOTHING(cublasGemmEx)
COMPUTE_NOTHING(cublasGemmStridedBatchedEx)
COMPUTE_NOTHING(cublasScopy_v2)
COMPUTE_NOTHING(cublasSetMathMode)
COMPUTE_NOTHING(cublasSetStream_v2)
COMPUTE_NOTHING(cublasSgeam)
COMPUTE_NOTHING(cublasSgemmBatched)
COMPUTE_NOTHING(cublasSgemmStridedBatched)
COMPUTE_NOTHING(cublasSgemm_v2)
COMPUTE_NOTHING(cublasSgetrfBatched)
COMPUTE_NOTHING(cublasSgetriBatched)
COMPUTE_NOTHING(cublasSscal_v2)
COMPUTE_NOTHING(cublasLtDestroy)
COMPUTE_NOTHING(cublasLtMatmul)
COMPUTE_NOTHING(cublasLtMatmulAlgoConfigSetAttribute)
COMPUTE_NOTHING(cublasLtMatmulAlgoGetHeuristic)
COMPUTE_NOTHING(cublasLtMatmulAlgoInit)
COMPUTE_NOTHING(cublasLtMatmulDescCreate)
COMPUTE_NOTHING(cublasLtMatmulDescDestroy)
COMPUTE_NOTHING(cublasLtMatmulDescSetAttribute)
COMPUTE_NOTHING(cublasLtMatmulPreferenceCreate)
COMPUTE_NOTHING(cublasLtMatmulPreferenceDestroy)
COMPUTE_NOTHING(cublasLtMatmulPreferenceSetAttribute)
COMPUTE_NOTHING(cublasLtMatrixLayoutCreate)
COMPUTE_NOTHING(cublasLtMatrixLayoutDestroy)
COMPUTE_NOTHING(cublasLtMatrixLayoutSetAttribute)
COMPUTE_NOTHING(cublasLtMatrixTransform)
COMPUTE_NOTHING(cublasLtMatrixTransformDescCreate)
COMPUTE_NOTHING(cublasLtMatrixTransformDescDestroy)
COMPUTE_NOTHING(cuTensorMapEncodeTiled)
