/* The simulated devices: settings, counts, faults, memory, time and captures. A part of libcudart.so.13.
 *
 * Nothing is computed. Work takes time: each device has an engine that computes and one that copies, a stream's work is
 * done in order, and only a synchronisation waits for it.
 */
#define _GNU_SOURCE
#include "stub.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST_GPUS 16
#define MOST_POINTS 32
#define MOST_THREADS 256
#define ALIGNMENT 256

struct stub_counts stub_totals;
int stub_gpus = 1;
long stub_plan_us, stub_capture_us;

static struct { long batch, microseconds; } run_times[MOST_POINTS]; /* by batch, rising */
static int run_points;
static double copy_us_per_mb;
static size_t memory = 16ul << 30;
static int logging;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all that follows */
static struct { size_t used; long free_at[2]; struct stream legacy; } devices[MOST_GPUS];
static struct { char function[64]; int code; long calls; } fault; /* the call that fails, counted down */
static int broken; /* the error that every call ends with since a context broke */
static struct stream *capturing;
static int threads[2][MOST_THREADS], thread_count[2];

static __thread int device, last_error;

/* ---- settings ---- */

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

/* "1:1000,8:1500": a run of one image takes 1000 microseconds, one of eight 1500. */
void stub_set_run_us(const char *table)
{
    int length;
    run_points = 0;
    while (run_points < MOST_POINTS && sscanf(table, "%ld:%ld%n", &run_times[run_points].batch,
                                              &run_times[run_points].microseconds, &length) == 2) {
        run_points++;
        table += length + (table[length] == ',');
    }
}

/* The `calls`-th call from now of a function ends with a CUDA error, or a status of cuDNN or cuBLAS. "*": of any. */
void stub_fail(const char *function, int code, long calls)
{
    pthread_mutex_lock(&lock);
    snprintf(fault.function, sizeof fault.function, "%s", function);
    fault.code = code;
    fault.calls = calls;
    pthread_mutex_unlock(&lock);
}

void stub_set_memory(size_t bytes)
{
    memory = bytes;
}

__attribute__((constructor)) static void read_settings(void)
{
    char function[64];
    int code;
    long calls;
    stub_gpus = atoi(setting("STUB_GPUS", "1"));
    stub_gpus = stub_gpus < MOST_GPUS ? stub_gpus : MOST_GPUS;
    memory = strtoull(setting("STUB_MEMORY", "17179869184"), NULL, 10);
    stub_plan_us = atol(setting("STUB_PLAN_US", "0"));
    stub_capture_us = atol(setting("STUB_CAPTURE_US", "0"));
    copy_us_per_mb = atof(setting("STUB_COPY_US_PER_MB", "0"));
    logging = atoi(setting("STUB_LOG", "0"));
    stub_set_run_us(setting("STUB_RUN_US", ""));
    if (sscanf(setting("STUB_FAIL", ""), "%63[^:]:%d:%ld", function, &code, &calls) == 3)
        stub_fail(function, code, calls);
    for (int i = 0; i < MOST_GPUS; i++)
        devices[i].legacy.device = i;
}

/* ---- counts ---- */

void stub_counts(struct stub_counts *counts)
{
    *counts = stub_totals;
}

int stub_thread(void)
{
    return gettid();
}

void stub_note_thread(enum stub_event event)
{
    pthread_mutex_lock(&lock);
    int known = 0, self = stub_thread();
    for (int i = 0; i < thread_count[event]; i++)
        known |= threads[event][i] == self;
    if (!known && thread_count[event] < MOST_THREADS)
        threads[event][thread_count[event]++] = self;
    pthread_mutex_unlock(&lock);
}

/* The threads that began a capture (0) or launched a graph (1). Returns how many there are. */
int stub_threads(enum stub_event event, int *found, int most)
{
    pthread_mutex_lock(&lock);
    int count = thread_count[event];
    memcpy(found, threads[event], sizeof(int) * (count < most ? count : most));
    pthread_mutex_unlock(&lock);
    return count;
}

/* ---- errors and faults ---- */

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
    {805, 1, "cudaErrorMpsConnectionFailed", "MPS client failed to connect to the MPS control daemon or the MPS server"},
    {806, 1, "cudaErrorMpsRpcFailure", "the remote procedural call between the MPS server and the MPS client failed"},
    {807, 1, "cudaErrorMpsServerNotReady", "MPS server is not ready to accept new MPS client requests"},
    {808, 1, "cudaErrorMpsMaxClientsReached", "the hardware resources required to create MPS client have been exhausted"},
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

int stub_error(int code)
{
    return last_error = code;
}

int stub_last_error(int forget)
{
    int code = broken ? broken : last_error;
    if (forget)
        last_error = 0;
    return code;
}

/* Under the lock: spoil the captures that a forbidden call of this thread disturbs; say whether there were any. */
static int spoil_captures(void)
{
    int disturbed = 0;
    for (struct stream *stream = capturing; stream; stream = stream->next) {
        if (stream->mode == CAPTURE_RELAXED || (stream->mode == CAPTURE_OF_THREAD && stream->thread != stub_thread()))
            continue;
        disturbed = 1;
        if (!stream->spoiled)
            COUNT(captures_spoiled);
        stream->spoiled = 1;
    }
    return disturbed;
}

int stub_enter(const char *function, int forbidden)
{
    pthread_mutex_lock(&lock);
    int code = broken;
    if (!code && fault.code && (!strcmp(fault.function, "*") || !strcmp(fault.function, function))
        && --fault.calls == 0) {
        code = fault.code;
        fault.code = 0;
        if (errors[index_of(code)].code == code && errors[index_of(code)].breaks)
            broken = code;
    }
    if (!code && forbidden && spoil_captures())
        code = ERROR_FORBIDDEN_IN_CAPTURE;
    pthread_mutex_unlock(&lock);
    if (logging)
        fprintf(stderr, "[stub %d] %s%s%s\n", stub_thread(), function, code ? ": " : "",
                code ? stub_error_text(code) : "");
    return code ? stub_error(code) : 0;
}

/* ---- devices and memory ---- */

int stub_device(void)
{
    return device;
}

int stub_set_device(int wanted)
{
    if (stub_gpus == 0)
        return stub_error(ERROR_NO_DEVICE);
    if (wanted < 0 || wanted >= stub_gpus)
        return stub_error(ERROR_INVALID_DEVICE);
    device = wanted;
    return 0;
}

struct block { /* before each allocation */
    size_t bytes;
    int device;
    void *start;
};

int stub_allocate(void **pointer, size_t bytes)
{
    pthread_mutex_lock(&lock);
    int fits = devices[device].used + bytes <= memory;
    if (fits) {
        devices[device].used += bytes;
        stub_totals.bytes += bytes;
        if (stub_totals.bytes > stub_totals.bytes_peak)
            stub_totals.bytes_peak = stub_totals.bytes;
    }
    pthread_mutex_unlock(&lock);
    if (!fits)
        return stub_error(ERROR_NO_MEMORY);
    char *start = calloc(1, bytes + 2 * ALIGNMENT); /* pages that nobody touches cost nothing */
    char *aligned = (char *)(((size_t)start + 2 * ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1));
    ((struct block *)aligned)[-1] = (struct block){bytes, device, start};
    *pointer = aligned;
    return 0;
}

void stub_free(void *pointer)
{
    if (!pointer)
        return;
    struct block *block = (struct block *)pointer - 1;
    pthread_mutex_lock(&lock);
    devices[block->device].used -= block->bytes;
    stub_totals.bytes -= block->bytes;
    pthread_mutex_unlock(&lock);
    free(block->start);
}

size_t stub_memory_free(void)
{
    return memory > devices[device].used ? memory - devices[device].used : 0;
}

/* ---- time ---- */

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static long larger(long a, long b)
{
    return a > b ? a : b;
}

struct stream *stub_stream(void *stream)
{
    return stream ? stream : &devices[device].legacy;
}

void stub_work(struct stream *stream, enum engine engine, long microseconds)
{
    if (stream->capturing) {
        stream->captured += microseconds;
        return;
    }
    pthread_mutex_lock(&lock);
    long *free_at = &devices[stream->device].free_at[engine];
    *free_at = stream->ready_at = larger(now(), larger(*free_at, stream->ready_at)) + microseconds;
    pthread_mutex_unlock(&lock);
}

void stub_copy(struct stream *stream, size_t bytes)
{
    stub_work(stream, COPY, copy_us_per_mb * bytes / 1e6);
}

/* The time of a run, between two points of the table by their line, outside it by the nearest point. */
static long run_us(long batch)
{
    if (!run_points)
        return 0;
    for (int i = 0; i < run_points; i++) {
        if (batch > run_times[i].batch)
            continue;
        if (i == 0 || batch == run_times[i].batch)
            return run_times[i].microseconds;
        double share = (double)(batch - run_times[i - 1].batch) / (run_times[i].batch - run_times[i - 1].batch);
        return run_times[i - 1].microseconds
            + share * (run_times[i].microseconds - run_times[i - 1].microseconds);
    }
    return run_times[run_points - 1].microseconds;
}

/* A run is what lies between two synchronisations of its stream; its time is counted with its first convolution. */
void stub_run(struct stream *stream, long batch)
{
    COUNT(plans_executed);
    if (!stream->run_counted)
        stub_work(stream, COMPUTE, run_us(batch));
    stream->run_counted = 1;
}

void stub_pause(long microseconds) /* usleep(0) would take 60 */
{
    if (microseconds > 0)
        usleep(microseconds);
}

void stub_wait(long until)
{
    stub_pause(until - now());
}

void stub_wait_for_device(void)
{
    stub_wait(larger(devices[device].free_at[COMPUTE], devices[device].free_at[COPY]));
}

/* ---- captures ---- */

int stub_capture_begin(struct stream *stream, enum capture_mode mode)
{
    pthread_mutex_lock(&lock);
    int already = stream->capturing;
    if (!already) {
        stream->capturing = 1;
        stream->spoiled = stream->run_counted = 0;
        stream->captured = 0;
        stream->mode = mode;
        stream->thread = stub_thread();
        stream->next = capturing;
        capturing = stream;
        COUNT(captures);
    }
    pthread_mutex_unlock(&lock);
    if (already)
        return stub_error(ERROR_ILLEGAL_STATE);
    stub_note_thread(STUB_CAPTURE);
    stub_pause(stub_capture_us);
    return 0;
}

int stub_capture_end(struct stream *stream, struct graph **graph)
{
    pthread_mutex_lock(&lock);
    for (struct stream **link = &capturing; *link; link = &(*link)->next)
        if (*link == stream) {
            *link = stream->next;
            break;
        }
    stream->capturing = stream->run_counted = 0;
    int spoiled = stream->spoiled;
    pthread_mutex_unlock(&lock);
    *graph = NULL;
    if (spoiled)
        return stub_error(ERROR_CAPTURE_SPOILED);
    *graph = malloc(sizeof **graph);
    (*graph)->microseconds = stream->captured;
    return 0;
}

int stub_capture_forbids(struct stream *stream)
{
    pthread_mutex_lock(&lock);
    int forbidden = stream->capturing;
    if (forbidden && !stream->spoiled) {
        stream->spoiled = 1;
        COUNT(captures_spoiled);
    }
    pthread_mutex_unlock(&lock);
    return forbidden ? stub_error(ERROR_FORBIDDEN_IN_CAPTURE) : 0;
}
