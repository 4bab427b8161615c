/*
 * The gate: whether this process is to be profiled. A pure function of the command line and a few
 * facts from the environment; no Python, no I/O, no allocation. Called by hook/module.c while the
 * interpreter starts (from sys.orig_argv, since sys.argv may still change), and again at the
 * vllm.general_plugins entry, when the environment may have been set anew.
 *
 * The order: the master switch; the command table; a session inherited from the parent; off.
 */
#ifndef PM_HOOK_GATE_H
#define PM_HOOK_GATE_H

#include <stdbool.h>
#include <stddef.h>

enum pm_gate_reason {
    PM_GATE_NOTHING,    /* off: nothing asks for it */
    PM_GATE_SWITCH_OFF, /* off: VLLM_ENABLE_PROFILING=0, whatever else is true */
    PM_GATE_SWITCH_ON,  /* on: VLLM_ENABLE_PROFILING=1 */
    PM_GATE_COMMAND,    /* on: the command line starts a vLLM engine */
    PM_GATE_SESSION,    /* on: the parent's session is in the environment */
};

struct pm_gate_input {
    size_t argc;
    const char *const *argv; /* sys.orig_argv: interpreter first */
    int enable;              /* the master switch, see pm_settings_enable: 1, 0, -1 unset */
    bool session;            /* a well-formed session token is in the environment */
};

struct pm_gate_verdict {
    bool active;
    bool server; /* the command line starts a server: it gets a session of its own */
    enum pm_gate_reason reason;
};

struct pm_gate_verdict pm_gate_decide(const struct pm_gate_input *input);

/* Whether the command line itself starts a vLLM engine (the table in docs/PATCH_FLOW.md). */
bool pm_gate_command_serves(size_t argc, const char *const *argv);

#endif
