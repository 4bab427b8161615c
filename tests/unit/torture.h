/*
 * Allocation failure for unit tests: makes the n-th malloc, calloc, realloc, aligned_alloc,
 * posix_memalign, strdup, strndup, opendir, fdopendir or fopen of the code under test fail. Include
 * it in one test_<name>.c; cmake/tests.cmake sees the #include and links that program with --wrap
 * for these functions, so no other program pays or changes. Other allocations inside libc itself
 * (getline) are not seen. Works under the sanitizers, whose leak check is what finds a path that
 * forgets to free.
 *
 *   TORTURE(n) {                       // n = 1, 2, 3 … until a round in which nothing failed
 *       struct thing *thing = NULL;
 *       int status = thing_new(&thing);
 *       assert_true(status == 0 || status == -PM_ENOMEM);
 *       thing_free(thing);
 *   }
 */
#ifndef PM_TEST_TORTURE_H
#define PM_TEST_TORTURE_H

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* The n-th allocation from now on fails, by any thread, once; 0: none. */
static _Atomic long torture_countdown;
static _Atomic bool torture_fired;

static inline void torture_arm(long n)
{
    atomic_store(&torture_fired, false);
    atomic_store(&torture_countdown, n);
}

/* Ends it; whether one was made to fail. */
static inline bool torture_disarm(void)
{
    atomic_store(&torture_countdown, 0);
    return atomic_load(&torture_fired);
}

/* Arms before each round, and goes on while the round before had a failure. */
static inline bool torture_next(long n)
{
    if (n > 1 && !torture_disarm())
        return false;
    torture_arm(n);
    return true;
}
#define TORTURE(n) for (long n = 1; torture_next(n); n++)

static inline bool torture_hit(void)
{
    if (atomic_load(&torture_countdown) <= 0 || atomic_fetch_sub(&torture_countdown, 1) != 1)
        return false;
    atomic_store(&torture_fired, true);
    errno = ENOMEM;
    return true;
}

#define TORTURE_WRAP(type, name, parameters, arguments, failure)                                   \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return torture_hit() ? failure : __real_##name arguments;                                  \
    }

TORTURE_WRAP(void *, malloc, (size_t n), (n), NULL)
TORTURE_WRAP(void *, calloc, (size_t n, size_t size), (n, size), NULL)
TORTURE_WRAP(void *, realloc, (void *old, size_t n), (old, n), NULL)
TORTURE_WRAP(void *, aligned_alloc, (size_t align, size_t n), (align, n), NULL)
TORTURE_WRAP(int, posix_memalign, (void **out, size_t align, size_t n), (out, align, n), ENOMEM)
TORTURE_WRAP(char *, strdup, (const char *text), (text), NULL)
TORTURE_WRAP(char *, strndup, (const char *text, size_t n), (text, n), NULL)
TORTURE_WRAP(DIR *, opendir, (const char *path), (path), NULL)
TORTURE_WRAP(DIR *, fdopendir, (int fd), (fd), NULL)
TORTURE_WRAP(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL)

#endif
