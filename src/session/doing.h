/*
 * What a thread of a serving process is doing, for a reader that looks at a hung or a dead one: the
 * words of the state that struct pm_thread_word holds (session/layout.h). Set by the probes at the
 * bounds of the calls that they hook anyway (pm_facts_doing), read by src/live. Pure C.
 *
 * A state holds from its moment until the next one is set by the same thread: an engine core that
 * runs its worker itself goes SCHEDULE, HAND_OVER, PREPARE, MODEL, … on one thread; with worker
 * processes it waits in HAND_OVER while they go through theirs.
 */
#ifndef PM_SESSION_DOING_H
#define PM_SESSION_DOING_H

#include <stdint.h>

/* X(NAME, word in files, sentence: "the thread is …") */
#define PM_DOINGS(X)                                                                               \
    X(UNKNOWN, "unknown", "not known")                                                             \
    X(BETWEEN, "between_steps", "between two steps: waiting for work, or in vLLM's own loop")      \
    X(SCHEDULE, "schedule", "in the scheduler (Scheduler.schedule)")                               \
    X(HAND_OVER, "hand_over", "past the scheduler: handing the step over, or waiting for it")      \
    X(UPDATE, "update", "taking a step's output in (Scheduler.update_from_output)")                \
    X(PREPARE, "prepare", "preparing the batch (execute_model, before the model)")                 \
    X(MODEL, "model", "in the model")                                                              \
    X(AFTER_MODEL, "after_model", "past the model, before sampling")                               \
    X(SAMPLE, "sample", "sampling (sample_tokens)")                                                \
    X(AFTER_STEP, "after_step",                                                                    \
      "past a step: waiting for the next one, or for its output to be "                            \
      "taken")                                                                                     \
    X(OUTPUT, "output", "waiting for the device to give a step's output (get_output)")             \
    X(WARM_UP, "warm_up", "compiling or warming up (compile_or_warm_up_model)")                    \
    X(HOOK, "hook", "in a hook of ProfileMate's own")
enum pm_doing {
#define PM_DOING_ENUM(name, word, sentence) PM_DOING_##name,
    PM_DOINGS(PM_DOING_ENUM)
#undef PM_DOING_ENUM
        PM_DOING_COUNT
};

/* One word: the moment in ns, its low bits replaced by what the thread does, and by whether it left
 * that by an exception; 0: nothing set. */
#define PM_DOING_BITS 6
#define PM_DOING_RAISED 32u
_Static_assert(PM_DOING_COUNT <= PM_DOING_RAISED, "what a thread does fits its bits");

static inline uint64_t pm_doing_make(unsigned doing, uint64_t since_ns)
{
    return (since_ns & ~(uint64_t)((1 << PM_DOING_BITS) - 1)) | doing;
}
static inline unsigned pm_doing_of(uint64_t state)
{
    return (unsigned)(state & (PM_DOING_RAISED - 1));
}
static inline int pm_doing_raised(uint64_t state)
{
    return (state & PM_DOING_RAISED) != 0;
}
static inline uint64_t pm_doing_since_ns(uint64_t state)
{
    return state & ~(uint64_t)((1 << PM_DOING_BITS) - 1);
}

#endif
