/* The simulated devices: settings, counts, memory and time. A part of libcudart.so.13.
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
int stub_gpus = 1, stub_logging, stub_copies = 1;
long stub_plan_us, stub_capture_us;
size_t stub_memory; /* of each device */

static struct { long batch, microseconds; } run_times[MOST_POINTS]; /* by batch, rising */
static int run_points;
static double copy_us_per_mb;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all that follows */
static struct { size_t used; long free_at[2]; struct stream legacy; } devices[MOST_GPUS];
static int threads[2][MOST_THREADS], thread_count[2];

static __thread int device;

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

void stub_set_memory(size_t bytes)
{
    stub_memory = bytes;
}

__attribute__((constructor)) static void read_settings(void)
{
    char function[64];
    int code;
    long calls;
    stub_gpus = atoi(setting("STUB_GPUS", "1"));
    stub_gpus = stub_gpus < MOST_GPUS ? stub_gpus : MOST_GPUS;
    stub_memory = strtoull(setting("STUB_MEMORY", "17179869184"), NULL, 10);
    stub_plan_us = atol(setting("STUB_PLAN_US", "0"));
    stub_capture_us = atol(setting("STUB_CAPTURE_US", "0"));
    copy_us_per_mb = atof(setting("STUB_COPY_US_PER_MB", "0"));
    stub_copies = atoi(setting("STUB_COPIES", "1"));
    stub_logging = atoi(setting("STUB_LOG", "0"));
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
    int fits = devices[device].used + bytes <= stub_memory;
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
    return stub_memory > devices[device].used ? stub_memory - devices[device].used : 0;
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
