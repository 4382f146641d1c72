/* cuDNN as ONNX Runtime calls it: libcudnn.so.9. A convolution's plan is built from descriptors that refer to each
 * other; the batch of its input is handed on from one to the next, so that the plan knows how long it runs.
 */
#include "stub.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { /* of cudnnBackendDescriptorType_t, cudnnBackendAttributeType_t and cudnnBackendAttributeName_t */
    DESCRIPTOR_PLAN = 5,
    TYPE_INT64 = 3,
    TYPE_DESCRIPTOR = 15,
    ATTRIBUTE_RESULTS = 202, /* of the heuristics: engine configurations */
    ATTRIBUTE_ENGINE = 300,
    ATTRIBUTE_WORKSPACE_OF_ENGINE = 303,
    ATTRIBUTE_SHARED_MEMORY = 304,
    ATTRIBUTE_WORKSPACE_OF_PLAN = 402,
    ATTRIBUTE_WEIGHTS = 703, /* of a convolution; their first dimension is no batch */
    ATTRIBUTE_ENGINE_COUNT = 802,
    ATTRIBUTE_DIMENSIONS = 902, /* of a tensor */
    ATTRIBUTE_ENGINE_INDEX = 1301,
};
#define STATUS_EXECUTION_FAILED 5000

struct handle { void *stream; };
struct descriptor { int type; long batch; };

static int status(int error) /* a fault may be a status of cuDNN; an error of CUDA is none */
{
    return error == 0 || error >= 1000 ? error : STATUS_EXECUTION_FAILED;
}

int cudnnCreate(struct handle **handle)
{
    COUNT(handles);
    *handle = calloc(1, sizeof **handle);
    return status(stub_enter(__func__, 1)); /* allocates, which a capture forbids */
}

int cudnnSetStream(struct handle *handle, void *stream)
{
    handle->stream = stream;
    return 0;
}

int cudnnGetStream(struct handle *handle, void **stream)
{
    *stream = handle->stream;
    return 0;
}

size_t cudnnGetVersion(void)
{
    return 91600;
}

size_t cudnnGetCudartVersion(void)
{
    return 13000;
}

const char *cudnnGetErrorString(int code)
{
    return code == STATUS_EXECUTION_FAILED ? "CUDNN_STATUS_EXECUTION_FAILED"
        : code == 4003 ? "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"
        : code == 4004 ? "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
        : code == 4000 ? "CUDNN_STATUS_INTERNAL_ERROR"
        : code == 1001 ? "CUDNN_STATUS_NOT_INITIALIZED" : "CUDNN_STATUS_OTHER";
}

void cudnnGetLastErrorString(char *text, size_t bytes)
{
    strncpy(text, "", bytes);
}

/* ---- graphs of operations: what convolutions use ---- */

int cudnnBackendCreateDescriptor(int type, struct descriptor **descriptor)
{
    *descriptor = calloc(1, sizeof **descriptor);
    (*descriptor)->type = type;
    return 0;
}

int cudnnBackendDestroyDescriptor(struct descriptor *descriptor)
{
    free(descriptor);
    return 0;
}

int cudnnBackendSetAttribute(struct descriptor *descriptor, int name, int type, int64_t count, const void *values)
{
    if (name == ATTRIBUTE_DIMENSIONS)
        descriptor->batch = *(const int64_t *)values;
    if (type == TYPE_DESCRIPTOR && name != ATTRIBUTE_WEIGHTS && count && !descriptor->batch)
        descriptor->batch = (*(struct descriptor *const *)values)->batch;
    return 0;
}

int cudnnBackendFinalize(struct descriptor *descriptor)
{
    if (descriptor->type != DESCRIPTOR_PLAN)
        return 0;
    int error = stub_enter("cudnnBuildPlan", 0); /* under a name of its own, for STUB_FAIL and the log */
    COUNT(plans_built);
    stub_pause(stub_plan_us);
    return status(error);
}

int cudnnBackendGetAttribute(struct descriptor *descriptor, int name, int type, int64_t wanted, int64_t *count,
                             void *values)
{
    int64_t found = 0;
    switch (name) {
    case ATTRIBUTE_RESULTS:
    case ATTRIBUTE_ENGINE:
        found = 1;
        if (values && wanted)
            (*(struct descriptor **)values)->batch = descriptor->batch;
        break;
    case ATTRIBUTE_WORKSPACE_OF_ENGINE:
    case ATTRIBUTE_WORKSPACE_OF_PLAN:
    case ATTRIBUTE_SHARED_MEMORY:
    case ATTRIBUTE_ENGINE_COUNT:
    case ATTRIBUTE_ENGINE_INDEX:
        found = 1;
        if (values)
            memset(values, 0, type == TYPE_INT64 ? 8 : 4);
    }
    if (count)
        *count = found;
    return 0;
}

int cudnnBackendExecute(struct handle *handle, struct descriptor *plan, struct descriptor *tensors)
{
    int error = stub_enter(__func__, 0);
    if (!error)
        stub_run(stub_stream(handle->stream), plan->batch);
    return status(error);
}

/* ---- the older interface: what fused convolutions, pooling, reductions and the like use ---- */

int cudnnCreateTensorDescriptor(struct descriptor **descriptor)
{
    return cudnnBackendCreateDescriptor(0, descriptor);
}

int cudnnDestroyTensorDescriptor(struct descriptor *descriptor)
{
    return cudnnBackendDestroyDescriptor(descriptor);
}

int cudnnSetTensorNdDescriptor(struct descriptor *descriptor, int type, int rank, const int *dimensions,
                               const int *strides)
{
    descriptor->batch = dimensions[0];
    return 0;
}

struct algorithm { int kind, status; float time; size_t memory; int rest[5]; }; /* cudnnConvolutionFwdAlgoPerf_t */

static int find(int *count, struct algorithm *algorithms)
{
    *count = 1;
    *algorithms = (struct algorithm){0};
    COUNT(plans_built);
    stub_pause(stub_plan_us);
    return 0;
}

int cudnnFindConvolutionForwardAlgorithmEx(struct handle *handle, void *x_type, void *x, void *w_type, void *w,
                                           void *convolution, void *y_type, void *y, int most, int *count,
                                           struct algorithm *algorithms, void *workspace, size_t bytes)
{
    return find(count, algorithms);
}

int cudnnGetConvolutionForwardAlgorithm_v7(struct handle *handle, void *x_type, void *w_type, void *convolution,
                                           void *y_type, int most, int *count, struct algorithm *algorithms)
{
    return find(count, algorithms);
}

int cudnnGetConvolutionForwardWorkspaceSize(struct handle *handle, void *x_type, void *w_type, void *convolution,
                                            void *y_type, int algorithm, size_t *bytes)
{
    *bytes = 0;
    return 0;
}

int cudnnConvolutionForward(struct handle *handle, const void *alpha, struct descriptor *x_type)
{
    int error = stub_enter(__func__, 0);
    if (!error)
        stub_run(stub_stream(handle->stream), x_type->batch);
    return status(error);
}

int cudnnConvolutionBiasActivationForward(struct handle *handle, const void *alpha, struct descriptor *x_type)
{
    return cudnnConvolutionForward(handle, alpha, x_type);
}

int cudnnGetReductionWorkspaceSize(struct handle *handle, void *reduction, void *a_type, void *c_type, size_t *bytes)
{
    *bytes = 0;
    return 0;
}

int cudnnGetReductionIndicesSize(struct handle *handle, void *reduction, void *a_type, void *c_type, size_t *bytes)
{
    *bytes = 0;
    return 0;
}

#define CREATE(kind) \
    int cudnnCreate##kind(void **descriptor) { *descriptor = calloc(1, 64); return 0; } \
    int cudnnDestroy##kind(void *descriptor) { free(descriptor); return 0; }
CREATE(ActivationDescriptor)
CREATE(ConvolutionDescriptor)
CREATE(DropoutDescriptor)
CREATE(FilterDescriptor)
CREATE(LRNDescriptor)
CREATE(PoolingDescriptor)
CREATE(RNNDataDescriptor)
CREATE(RNNDescriptor)
CREATE(ReduceTensorDescriptor)

#define COMPUTE_NOTHING(function) int function() { return status(stub_enter(#function, 0)); }
COMPUTE_NOTHING(cudnnActivationForward)
COMPUTE_NOTHING(cudnnAddTensor)
COMPUTE_NOTHING(cudnnBatchNormalizationForwardInference)
COMPUTE_NOTHING(cudnnBatchNormalizationForwardTraining)
COMPUTE_NOTHING(cudnnDeriveBNTensorDescriptor)
COMPUTE_NOTHING(cudnnDestroy)
COMPUTE_NOTHING(cudnnDropoutGetStatesSize)
COMPUTE_NOTHING(cudnnGetRNNTempSpaceSizes)
COMPUTE_NOTHING(cudnnGetRNNWeightParams)
COMPUTE_NOTHING(cudnnGetTensorNdDescriptor)
COMPUTE_NOTHING(cudnnLRNCrossChannelForward)
COMPUTE_NOTHING(cudnnPoolingForward)
COMPUTE_NOTHING(cudnnRNNForward)
COMPUTE_NOTHING(cudnnReduceTensor)
COMPUTE_NOTHING(cudnnSetActivationDescriptor)
COMPUTE_NOTHING(cudnnSetConvolutionGroupCount)
COMPUTE_NOTHING(cudnnSetConvolutionMathType)
COMPUTE_NOTHING(cudnnSetConvolutionNdDescriptor)
COMPUTE_NOTHING(cudnnSetDropoutDescriptor)
COMPUTE_NOTHING(cudnnSetFilterNdDescriptor)
COMPUTE_NOTHING(cudnnSetLRNDescriptor)
COMPUTE_NOTHING(cudnnSetPoolingNdDescriptor)
COMPUTE_NOTHING(cudnnSetRNNDataDescriptor)
COMPUTE_NOTHING(cudnnSetRNNDescriptor_v8)
COMPUTE_NOTHING(cudnnSetReduceTensorDescriptor)
COMPUTE_NOTHING(cudnnSoftmaxForward)
