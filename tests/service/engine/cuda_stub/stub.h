/* What the stub libraries share: simulated devices, faults and captures, and the few types of CUDA that are needed.
 *
 * Numbers and layouts are those that NVIDIA publishes for CUDA 13 (driver_types.h) and cuDNN 9 (cudnn_graph_v9.h). They
 * are written out here so that a build needs gcc alone.
 */
#include <stddef.h>

enum { /* of cudaError_t */
    ERROR_INVALID_VALUE = 1,
    ERROR_NO_MEMORY = 2,
    ERROR_NO_DEVICE = 100,
    ERROR_INVALID_DEVICE = 101,
    ERROR_ILLEGAL_STATE = 401,
    ERROR_FORBIDDEN_IN_CAPTURE = 900,
    ERROR_CAPTURE_SPOILED = 901,
};

enum capture_mode { CAPTURE_GLOBAL, CAPTURE_OF_THREAD, CAPTURE_RELAXED }; /* cudaStreamCaptureMode */

struct stream {
    int device;
    long ready_at;     /* microseconds; when what was queued so far is done */
    int run_counted;   /* the time of the run since the last synchronisation is queued already */
    int capturing;     /* between begin and end of a capture */
    int spoiled;       /* by a forbidden call */
    int thread;        /* that captures */
    enum capture_mode mode;
    long captured;     /* microseconds of what was captured */
    struct stream *next; /* among those that are capturing */
};

struct graph {
    long microseconds;
};

/* Read by tests through ctypes; `Counts` in inside.py has the same fields. All are totals but `bytes`, which is now. */
struct stub_counts {
    long plans_built, plans_executed, kernels, captures, captures_spoiled, graph_launches;
    long synchronisations, streams, handles, bytes, bytes_peak;
};
extern struct stub_counts stub_totals;
#define COUNT(what) __atomic_fetch_add(&stub_totals.what, 1, __ATOMIC_RELAXED)

enum stub_event { STUB_CAPTURE, STUB_LAUNCH };
enum engine { COMPUTE, COPY }; /* a device computes and copies at once, but does one thing of each kind at a time */

/* Settings, from the environment; README.md has them all. */
extern int stub_gpus, stub_logging, stub_copies;
extern long stub_plan_us, stub_capture_us;
extern size_t stub_memory;

/* Every call into a library begins here. Returns the error that it ends with, or 0. `forbidden`: during a capture. */
int stub_enter(const char *function, int forbidden);
int stub_error(int code); /* notes an error for cudaGetLastError, and returns it */
int stub_last_error(int forget);
void stub_fail(const char *function, int code, long calls);
const char *stub_error_name(int code);
const char *stub_error_text(int code);
int stub_error_breaks(int code);

int stub_device(void); /* of this thread */
int stub_set_device(int device);
int stub_allocate(void **pointer, size_t bytes);
void stub_free(void *pointer);
size_t stub_memory_free(void);

struct stream *stub_stream(void *stream); /* NULL is the legacy stream of this thread's device */
void stub_work(struct stream *stream, enum engine engine, long microseconds);
void stub_copy(struct stream *stream, size_t bytes);
void stub_run(struct stream *stream, long batch); /* a convolution of so many images was queued */
void stub_pause(long microseconds);
void stub_wait(long until);
void stub_wait_for_device(void);
int stub_thread(void);
void stub_note_thread(enum stub_event event);

int stub_capture_begin(struct stream *stream, enum capture_mode mode);
int stub_capture_end(struct stream *stream, struct graph **graph);
int stub_capture_forbids(struct stream *stream); /* waiting for it */

#define ENTER() do { int error_ = stub_enter(__func__, 0); if (error_) return error_; } while (0)
#define ENTER_FORBIDDEN() do { int error_ = stub_enter(__func__, 1); if (error_) return error_; } while (0)
#define NOTHING(function) int function() { return stub_enter(#function, 0); } /* succeeds, and does nothing */
