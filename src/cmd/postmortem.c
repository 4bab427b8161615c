/*
 * profilemate postmortem: why a server died or hangs, on one page, from what its session holds.
 * Made to be attached to a bug report: no prompts, no tokens, no texts of exceptions, and requests
 * by a digest of their ids.
 */
#include "cmd/postmortem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/siphash.h"
#include "cmd/cmd.h"
#include "cmd/options.h"
#include "cmd/place.h"
#include "cmd/top.h"
#include "session/attrs.h"
#include "session/request_facts.h"
#include "session/step_facts.h"
#include "view/view.h"

#define STEPS_SHOWN 8
#define REQUESTS_SHOWN 12
#define ENDED_SHOWN 4

static struct postmortem_options {
    bool json, ids;
    const char *dir;
} options;

static const struct pm_option option_table[] = {
    {'j', "json", PM_OPTION_FLAG, "", &options.json, "one JSON document on stdout"},
    {0, "ids", PM_OPTION_FLAG, "", &options.ids,
     "requests by their own ids, which clients may have chosen"},
    {0, "dir", PM_OPTION_TEXT, "DIR", &options.dir, "look here (default: where sessions go)"},
};
static const char *const synopsis[] = {"[--json] [--ids] [SESSION]", NULL};
static const char *const examples[] = {
    "profilemate postmortem",
    "why the newest server of yours died, or hangs",
    "profilemate postmortem session_20261123_082501 > postmortem.txt",
    "a page to attach to a bug report",
    "profilemate postmortem --json | jq -r .sentence",
    "what happened, in one sentence",
    NULL,
};
static const struct pm_usage usage = {
    .command = "postmortem",
    .synopsis = synopsis,
    .intro =
        "Says why a server died or hangs: how each process ended, what it was in when its\n"
        "records stopped, its last steps and requests, and the memory of the machine. Reads\n"
        "the session alone, so it works when nothing of the server is left. What clients sent\n"
        "is not in it.",
    .options = option_table,
    .n_options = sizeof(option_table) / sizeof(option_table[0]),
    .examples = examples,
    .outro = "Exit code: 0; 1 when there is no such session, or it cannot be read; 2 for a misuse.",
    .max_operands = 1,
};

void pm_postmortem_name(const char *id, bool plain, char *out, size_t size)
{
    static const uint8_t key[16] = "profilemate.ids";
    if (plain)
        snprintf(out, size, "%s", id);
    else
        snprintf(out, size, "#%08llx",
                 (unsigned long long)(pm_siphash(key, id, strlen(id)) & 0xffffffffu));
}

/* ---- the page -------------------------------------------------------------------------------- */

static void head(const char *text)
{
    printf("\n%s%s%s\n", pm_style(stdout, PM_BOLD), text, pm_style(stdout, PM_PLAIN));
}

/* A moment: how long after the session's start. */
static const char *moment(const struct pm_autopsy *autopsy, uint64_t at_ns, char *out, size_t size)
{
    const uint64_t start_ns = autopsy->view->info->start_mono_ns;
    if (at_ns == 0 || at_ns < start_ns)
        snprintf(out, size, "-");
    else
        snprintf(out, size, "+%.3f s", (double)(at_ns - start_ns) / 1e9);
    return out;
}

static void line_of(const char *name, const char *value)
{
    if (value == NULL || value[0] == '\0')
        return;
    printf("  %-12s", name);
    pm_print_clean(stdout, value);
    putchar('\n');
}

static void wrapped(const char *text)
{
    while (*text != '\0') {
        size_t cut = strlen(text);
        if (cut > 94) {
            cut = 94;
            while (cut > 20 && text[cut] != ' ')
                cut--;
        }
        char part[128];
        snprintf(part, sizeof(part), "%.*s", (int)cut, text);
        printf("  ");
        pm_print_clean(stdout, part);
        putchar('\n');
        text += cut;
        text += *text == ' ';
    }
}

static void print_session(const struct pm_autopsy *autopsy)
{
    const struct pm_live_view *view = autopsy->view;
    char started[64], lived[24];
    pm_iso_time(view->info->start_real_ns, started, sizeof(started));
    pm_top_age(view->now_ns - view->info->start_mono_ns, lived, sizeof(lived));
    printf("%sPost-mortem of ", pm_style(stdout, PM_BOLD));
    pm_print_clean(stdout, view->info->name);
    printf("%s\n\n", pm_style(stdout, PM_PLAIN));
    line_of("started", started);
    line_of(view->running ? "runs for" : "lived", lived);
    line_of("model", pm_session_attr(view->session, PM_ATTR_MODEL));
    char versions[512];
    const char *vllm = pm_session_attr(view->session, PM_ATTR_VLLM);
    const char *torch = pm_session_attr(view->session, PM_ATTR_TORCH);
    const char *python = pm_session_attr(view->session, PM_ATTR_PYTHON);
    const char *device = pm_session_attr(view->session, PM_ATTR_DEVICE);
    snprintf(versions, sizeof(versions), "vLLM %s, torch %s, Python %s, device %s",
             vllm != NULL ? vllm : "unknown", torch != NULL ? torch : "unknown",
             python != NULL ? python : "unknown", device != NULL ? device : "unknown");
    line_of("versions", versions);
    line_of("command", pm_session_attr(view->session, PM_ATTR_COMMAND));
}

static void print_process(const struct pm_autopsy *autopsy, const struct pm_end *end)
{
    static const char *const lives[] = {"runs", "ended by itself",
                                        "gone without a word: killed, or left past Python's exit"};
    const struct pm_live_process *process = end->process;
    char at[32], status[96];
    printf("  %s, pid %u: %s", pm_live_role_text(process->info.roles), process->info.pid,
           lives[process->info.life]);
    if (process->visible)
        printf(", state %c (%s)", process->proc.state, pm_proc_state_text(process->proc.state));
    if (end->status >= 0) {
        pm_proc_status_text(end->status, status, sizeof(status));
        printf(", %s", status);
    }
    printf("\n      last sign of it %s", moment(autopsy, end->last_sign_ns, at, sizeof(at)));
    if (process->visible && process->proc.wchan[0] != '\0')
        printf(", waits in the kernel at %s", process->proc.wchan);
    if (process->visible) {
        char rss[24];
        pm_top_bytes(process->proc.rss_bytes, rss, sizeof(rss));
        printf(", %s resident", rss);
    }
    putchar('\n');
    for (size_t i = 0; i < process->n_threads; i++) {
        const struct pm_thread_state *thread = &process->threads[i];
        printf("      thread %u: %s%s since %s", thread->tid, pm_live_doing_text(thread->doing),
               thread->raised ? ", which raised," : "",
               moment(autopsy, thread->since_ns, at, sizeof(at)));
        if (process->thread_kernel[i] != 0)
            printf(", state %c", process->thread_kernel[i]);
        putchar('\n');
    }
    if (end->raised != NULL) {
        printf("      %s raised ", end->raised_in);
        pm_print_clean(stdout, end->raised);
        putchar('\n');
    }
    if (process->n_threads == 0 && process->info.roles & (PM_ROLE_ENGINE | PM_ROLE_WORKER))
        printf("      what its threads did is not recorded\n");
}

static void print_processes(const struct pm_autopsy *autopsy)
{
    size_t others = 0;
    head("Processes");
    for (size_t i = 0; i < autopsy->view->n_processes; i++) {
        if (autopsy->ends[i].process->info.roles == 0)
            others++;
        else
            print_process(autopsy, &autopsy->ends[i]);
    }
    if (others > 0)
        printf("  and %zu other%s that took no part in serving\n", others, others == 1 ? "" : "s");
}

static void print_steps(const struct pm_autopsy *autopsy, const struct pm_live_engine *engine)
{
    static const char *const phases[PM_PHASE_CLASSES] = {"empty", "prefill", "decode"};
    char start[32], took[32], model[32];
    if (autopsy->view->n_engines > 1)
        printf("\n%sLast steps of engine %u%s\n", pm_style(stdout, PM_BOLD), engine->number,
               pm_style(stdout, PM_PLAIN));
    else
        head("Last steps");
    if (engine->n_steps == 0) {
        printf("  none was recorded\n");
        return;
    }
    printf("  %8s  %-7s  %12s  %9s  %9s  %5s  %6s  %5s\n", "STEP", "PHASE", "BEGAN", "TOOK",
           "MODEL", "REQS", "TOKENS", "QUEUE");
    const size_t first = engine->n_steps > STEPS_SHOWN ? engine->n_steps - STEPS_SHOWN : 0;
    for (size_t i = first; i < engine->n_steps; i++) {
        const struct pm_live_step *step = &engine->steps[i];
        snprintf(took, sizeof(took), "not over");
        snprintf(model, sizeof(model), "-");
        if (step->end_ns > step->start_ns)
            pm_top_span((double)(step->end_ns - step->start_ns), took, sizeof(took));
        if (step->has_worker)
            pm_top_span((double)step->model_ns, model, sizeof(model));
        printf("  %8llu  %-7s  %12s  %*s  %*s  %5u  %6u  %5u%s\n", (unsigned long long)step->step,
               phases[step->phase < PM_PHASE_CLASSES ? step->phase : 0],
               moment(autopsy, step->start_ns, start, sizeof(start)),
               9 + (strstr(took, "µ") != NULL), took, 9 + (strstr(model, "µ") != NULL), model,
               step->requests, step->tokens, step->waiting, step->failed ? "  raised" : "");
    }
}

static void print_requests(const struct pm_live_engine *engine)
{
    printf("\n%sRequests under way: %zu%s\n", pm_style(stdout, PM_BOLD), engine->n_requests,
           pm_style(stdout, PM_PLAIN));
    if (engine->n_requests > 0)
        printf("  %-24s  %8s  %-9s  %7s  %7s  %4s  %9s\n", "REQUEST", "AGE", "PHASE", "PROMPT",
               "OUTPUT", "PRE", "GAP");
    for (size_t i = 0; i < engine->n_requests && i < REQUESTS_SHOWN; i++) {
        const struct pm_live_request *request = &engine->requests[i];
        char name[PM_REQUEST_ID_MAX], age[24] = "-", gap[24] = "-";
        pm_postmortem_name(request->id, options.ids, name, sizeof(name));
        if (request->age_ns > 0)
            pm_top_age(request->age_ns, age, sizeof(age));
        if (request->gap_ns > 0)
            pm_top_span((double)request->gap_ns, gap, sizeof(gap));
        printf("  ");
        pm_print_clean(stdout, name);
        printf("%*s  %8s  %-9s  %7u  %7u  %4u  %*s\n",
               strlen(name) < 24 ? 24 - (int)strlen(name) : 0, "", age, request->phase,
               request->prompt_tokens, request->output_tokens, request->preemptions,
               9 + (strstr(gap, "µ") != NULL), gap);
    }
    if (engine->n_requests > REQUESTS_SHOWN)
        printf("  and %zu more\n", engine->n_requests - REQUESTS_SHOWN);
    const size_t first = engine->n_ended > ENDED_SHOWN ? engine->n_ended - ENDED_SHOWN : 0;
    for (size_t i = first; i < engine->n_ended; i++) {
        const struct pm_request *request = &engine->ended[i];
        char name[PM_REQUEST_ID_MAX];
        pm_postmortem_name(request->id, options.ids, name, sizeof(name));
        printf("  ended before: ");
        pm_print_clean(stdout, name);
        printf(" (%s, %u prompt and %u output tokens)\n",
               pm_finish_reason_text(request->fact.reason), request->fact.prompt_tokens,
               request->fact.output_tokens);
    }
}

static void amount(const char *name, uint64_t bytes, bool first)
{
    char text[24];
    if (bytes == UINT64_MAX)
        return;
    pm_top_bytes(bytes, text, sizeof(text));
    printf("%s%s %s", first ? "" : ", ", name, text);
}

static void print_memory(const struct pm_autopsy *autopsy)
{
    const struct pm_memory *memory = &autopsy->memory;
    head("Memory of this machine, now");
    printf("  ");
    amount("total", memory->total, true);
    amount("available", memory->available, false);
    amount("swap free", memory->swap_free, false);
    amount("in the server's cgroup", memory->group_used, false);
    amount("its limit", memory->group_limit, false);
    putchar('\n');
    if (memory->group_oom_kills != UINT64_MAX && autopsy->oom_kills_before != UINT64_MAX)
        printf("  processes killed in the cgroup for want of memory: %llu, %llu of them before the "
               "session\n",
               (unsigned long long)memory->group_oom_kills,
               (unsigned long long)autopsy->oom_kills_before);
    for (size_t i = 0; i < autopsy->kernel.n_lines; i++) {
        printf("  kernel: ");
        pm_print_clean(stdout, autopsy->kernel.lines[i].text);
        putchar('\n');
    }
}

/* What this page could not tell, so that nobody takes silence for an answer. */
static void print_unknown(const struct pm_autopsy *autopsy)
{
    const struct pm_live_view *view = autopsy->view;
    bool mute = false;
    head("Not known");
    for (size_t i = 0; i < view->n_processes; i++)
        mute = mute || (autopsy->ends[i].process->info.life == PM_LIFE_KILLED &&
                        autopsy->ends[i].status < 0);
    if (mute)
        printf("  the signal or exit code of processes whose parent was not `profilemate run`\n");
    if (!view->here)
        printf("  anything of the machine that it ran on: this is another one, or it was started "
               "again since\n");
    else if (!autopsy->kernel.readable)
        printf("  what the kernel logged (`dmesg` needs more rights here): look there for \"Out of "
               "memory\" and \"segfault\"\n");
    if (autopsy->oom_kills_before == UINT64_MAX)
        printf("  kills for want of memory in the server's cgroup (none of version 2 was "
               "recorded)\n");
    if (!view->running)
        printf("  how much memory was free when it ended\n");
    if (pm_session_note_count(view->session) > 0)
        printf("  %zu part%s of the records that could not be read: see `profilemate doctor`\n",
               pm_session_note_count(view->session),
               pm_session_note_count(view->session) == 1 ? "" : "s");
    if (view->running && (autopsy->cause == PM_CAUSE_HANGS || autopsy->cause == PM_CAUSE_BROKEN))
        printf("  the Python stack: `py-spy dump --pid PID` shows it while the process is there\n");
}

static int print_page(const struct pm_autopsy *autopsy)
{
    print_session(autopsy);
    head("What happened");
    wrapped(autopsy->sentence);
    if (autopsy->evidence[0] != '\0')
        wrapped(autopsy->evidence);
    print_processes(autopsy);
    for (size_t e = 0; e < autopsy->view->n_engines; e++) {
        print_steps(autopsy, &autopsy->view->engines[e]);
        print_requests(&autopsy->view->engines[e]);
    }
    print_memory(autopsy);
    print_unknown(autopsy);
    return pm_finish_stdout();
}

static int print_json(const struct pm_autopsy *autopsy)
{
    struct pm_buf buf;
    struct pm_json json;
    pm_buf_init(&buf, 256u << 20);
    pm_json_init(&json, &buf, 2);
    pm_postmortem_json(&json, autopsy, options.ids);
    const int error = pm_json_finish(&json);
    if (error == 0)
        fwrite(buf.data, 1, buf.used, stdout);
    pm_buf_release(&buf);
    if (error != 0)
        return pm_complain("cannot tell the end, %s, free some memory", pm_strerror(error));
    return pm_finish_stdout();
}

int pm_cmd_postmortem(int argc, char **argv)
{
    int first;
    enum pm_parsed parsed = pm_options_parse(&usage, argc, argv, &first, NULL);
    if (parsed != PM_PARSED_OK)
        return parsed == PM_PARSED_HELP ? pm_finish_stdout() : PM_EXIT_MISUSE;
    struct pm_place place;
    struct pm_error err = {""};
    struct pm_live *live;
    struct pm_autopsy autopsy;
    if (pm_place_resolve(options.dir, first < argc ? argv[first] : NULL, &place, &err) != 0)
        return pm_complain("%s", err.text);
    if (pm_live_open(&live, place.path, 0, &err) != 0)
        return pm_complain("%s", err.text);
    int code;
    if (pm_autopsy_make(&autopsy, pm_live_view(live)) != 0) {
        code = pm_complain("cannot look into %s, out of memory, free some", place.path);
    } else {
        code = options.json ? print_json(&autopsy) : print_page(&autopsy);
        pm_autopsy_release(&autopsy);
    }
    pm_live_close(live);
    return code;
}
