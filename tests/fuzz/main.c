/* libFuzzer's two entries around harness.pyx. The game is in the environment: EDGEBLOCK_FUZZ=tls|http|... */
#include <Python.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What one input may take, in nanoseconds of this thread: a hundred times what is usual, sanitizers and all. A game
   of streams plays some hundred packets for a few bytes. What takes longer is played twice more, for the machine may
   have been busy. No packet may take longer than LIMIT_OF_PACKET: three times the dearest that two minutes of each game
   found, by the fastest of three turns, sanitizers and all (hide 1.34 ms, innocent 1.33, packets 0.35, recall 0.19). */
enum { LIMIT = 20 * 1000 * 1000, LIMIT_OF_STREAMS = 60 * 1000 * 1000, LIMIT_PER_BYTE = 20 * 1000 };
enum { LIMIT_OF_PACKET = 4 * 1000 * 1000 };

extern PyObject *PyInit_harness(void);
extern int fuzz_one(int game, const uint8_t *data, size_t size);
extern int find_game(const char *name);
extern const char *all_games(void);
extern int first_of_streams;
extern long long slowest;

static int game = -1;

/* Compared strings teach the fuzzer nothing here that the samples do not hold, and libcrypto compares many: without
   libFuzzer's own versions of these a run is a third faster (linked with muldefs; the first definition counts). */
void __sanitizer_weak_hook_memcmp(void *pc, const void *a, const void *b, size_t n, int result) {}
void __sanitizer_weak_hook_strcmp(void *pc, const char *a, const char *b, int result) {}
void __sanitizer_weak_hook_strncmp(void *pc, const char *a, const char *b, size_t n, int result) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *wanted = getenv("EDGEBLOCK_FUZZ");
    PyImport_AppendInittab("harness", PyInit_harness);
    Py_Initialize();
    if (PyRun_SimpleString("import tests.fuzz.opening") != 0)
        exit(2);
    game = wanted ? find_game(wanted) : -1;
    if (game < 0) {
        fprintf(stderr, "EDGEBLOCK_FUZZ must name a game: %s\n", all_games());
        exit(2);
    }
    (void)argc, (void)argv;
    return 0;
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    long long taken = 0, limit = game >= first_of_streams ? LIMIT_OF_STREAMS : LIMIT;
    limit += (long long)size * LIMIT_PER_BYTE;
    for (int turn = 0; turn < 3; turn++) {
        long long begin = now();
        if (fuzz_one(game, data, size) < 0) {
            PyErr_Print();
            abort();
        }
        taken = now() - begin;
        if (taken <= limit && slowest <= LIMIT_OF_PACKET)
            return 0;
    }
    fprintf(stderr, "an input of %zu bytes takes %lld ms, a packet of it %lld us, longer than its limit\n", size,
            taken / 1000000, slowest / 1000);
    abort();
}
