/* What every call goes through: the log, faults, contexts that are broken, and captures. A part of libcudart.so.13. */
#include "stub.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the three that follow */
static struct { char function[64]; int code; long calls; } fault; /* the call that fails, counted down */
static int broken; /* the error that every call ends with since a context broke */
static struct stream *capturing;

static __thread int last_error;

/* The `calls`-th call from now of a function ends with a CUDA error, or a status of cuDNN or cuBLAS. "*": of any. */
void stub_fail(const char *function, int code, long calls)
{
    pthread_mutex_lock(&lock);
    snprintf(fault.function, sizeof fault.function, "%s", function);
    fault.code = code;
    fault.calls = calls;
    pthread_mutex_unlock(&lock);
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
        if (stub_error_breaks(code))
            broken = code;
    }
    if (!code && forbidden && spoil_captures())
        code = ERROR_FORBIDDEN_IN_CAPTURE;
    pthread_mutex_unlock(&lock);
    if (stub_logging)
        fprintf(stderr, "[stub %d] %s%s%s\n", stub_thread(), function, code ? ": " : "",
                code ? stub_error_text(code) : "");
    return code ? stub_error(code) : 0;
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
