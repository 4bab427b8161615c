/*
 * Gathers the sessions of both sides, and has them compared. See compare.h.
 */
#include "compare/compare.h"

#include <stdlib.h>
#include <string.h>

#include "compare/judge.h"
#include "session/attrs.h"

int pm_compare_begin(struct pm_compare_input **ret_input)
{
    struct pm_compare_input *input = calloc(1, sizeof(*input));
    if (input == NULL)
        return -PM_ENOMEM;
    input->known = (struct pm_known){.sched = true, .kv = true, .detail = true};
    *ret_input = input;
    return 0;
}

void pm_compare_free(struct pm_compare_input *input)
{
    if (input == NULL)
        return;
    for (unsigned side = 0; side < 2; side++) {
        struct pm_input_side *all = &input->sides[side];
        for (unsigned i = 0; i < all->n_parts; i++)
            pm_collected_release(&all->parts[i].collected);
        free(all->parts);
        free(all->sessions);
    }
    pm_strata_release(&input->step_strata);
    pm_strata_release(&input->request_strata);
    free(input);
}

struct pm_strata *pm_compare_step_strata(struct pm_compare_input *input)
{
    return &input->step_strata;
}

struct pm_strata *pm_compare_request_strata(struct pm_compare_input *input)
{
    return &input->request_strata;
}

int pm_compare_look(struct pm_compare_input *input, const struct pm_session *session)
{
    for (size_t e = 0; e < pm_session_engine_count(session); e++) {
        struct pm_known known;
        int rc = pm_collect_known(session, e, &known);
        if (rc != 0)
            return rc;
        input->known.sched = input->known.sched && known.sched;
        input->known.kv = input->known.kv && known.kv;
        input->known.detail = input->known.detail && known.detail;
    }
    return 0;
}

/* Names come from files that anybody may have written: what could drive a terminal becomes `?`. */
static void say(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text != NULL ? text : "");
    for (char *c = out; *c != '\0'; c++)
        if (*c < ' ' || *c == 127)
            *c = '?';
}

static int new_session(struct pm_input_side *side, const char *name)
{
    struct pm_compared_session *grown =
        realloc(side->sessions, (side->n_sessions + 1) * sizeof(*grown));
    if (grown == NULL)
        return -PM_ENOMEM;
    side->sessions = grown;
    struct pm_compared_session *info = &grown[side->n_sessions++];
    memset(info, 0, sizeof(*info));
    say(info->name, sizeof(info->name), name);
    snprintf(info->clock, sizeof(info->clock), "none");
    return 0;
}

/* Takes over what was collected, as a part of the last session. */
static int take(struct pm_input_side *side, struct pm_collected *collected)
{
    static const char *const clocks[4] = {"none", "wall", "sync", "events"};
    struct pm_compared_session *info = &side->sessions[side->n_sessions - 1];
    struct pm_input_part *grown = realloc(side->parts, (side->n_parts + 1) * sizeof(*grown));
    unsigned most = 0;

    if (grown == NULL) {
        pm_collected_release(collected);
        return -PM_ENOMEM;
    }
    side->parts = grown;
    side->parts[side->n_parts].collected = *collected;
    side->parts[side->n_parts++].session = side->n_sessions - 1;
    info->engines++;
    info->steps += collected->steps.observations;
    info->requests += collected->n_requests;
    info->left_out += collected->left_out;
    info->recycled = info->recycled || collected->recycled;
    if (collected->span_ns > info->span_ns)
        info->span_ns = collected->span_ns;
    for (unsigned c = 1; c < 4; c++)
        if (collected->clocks[c] > collected->clocks[most] || most == 0)
            most = collected->clocks[c] > 0 &&
                           (most == 0 || collected->clocks[c] > collected->clocks[most])
                       ? c
                       : most;
    if (most != 0)
        snprintf(info->clock, sizeof(info->clock), "%s", clocks[most]);
    return 0;
}

int pm_compare_add_collected(struct pm_compare_input *input, unsigned side, const char *name,
                             struct pm_collected *collected)
{
    int rc = new_session(&input->sides[side], name);
    if (rc != 0) {
        pm_collected_release(collected);
        return rc;
    }
    return take(&input->sides[side], collected);
}

int pm_compare_add(struct pm_compare_input *input, unsigned side, const struct pm_session *session,
                   struct pm_error *err)
{
    const struct pm_session_info *about = pm_session_info(session);
    int rc = new_session(&input->sides[side], about->name);

    for (size_t e = 0; rc == 0 && e < pm_session_engine_count(session); e++) {
        struct pm_collected collected;
        rc = pm_collect_engine(session, e, &input->known, &input->step_strata,
                               &input->request_strata, &collected);
        if (rc != 0)
            pm_collected_release(&collected);
        else
            rc = take(&input->sides[side], &collected);
    }
    if (rc != 0)
        return pm_error_set(err, rc, "cannot read the session %s, %s", about->path,
                            pm_strerror(rc));
    struct pm_compared_session *info =
        &input->sides[side].sessions[input->sides[side].n_sessions - 1];
    say(info->path, sizeof(info->path), about->path);
    say(info->model, sizeof(info->model), pm_session_attr(session, PM_ATTR_MODEL));
    say(info->vllm, sizeof(info->vllm), pm_session_attr(session, PM_ATTR_VLLM));
    say(info->device, sizeof(info->device), pm_session_attr(session, PM_ATTR_DEVICE));
    say(info->profilemate, sizeof(info->profilemate),
        pm_session_attr(session, PM_ATTR_PROFILEMATE));
    info->has_sched = input->known.sched;
    info->has_kv = input->known.kv;
    return 0;
}

/* The tallies of one side, of the steps or of the requests. */
static int list(struct pm_input_side *all, bool requests, struct pm_side *ret_side)
{
    struct pm_side side = {.n = all->n_parts, .n_sessions = all->n_sessions};
    side.tallies = calloc(side.n + 1, sizeof(struct pm_tally *));
    side.sessions = calloc(side.n + 1, sizeof(unsigned));
    *ret_side = side;
    if (side.tallies == NULL || side.sessions == NULL)
        return -PM_ENOMEM;
    for (unsigned i = 0; i < side.n; i++) {
        struct pm_collected *collected = &all->parts[i].collected;
        side.tallies[i] = requests ? &collected->requests : &collected->steps;
        side.sessions[i] = all->parts[i].session;
    }
    return 0;
}

static unsigned kind_of_step(uint64_t key)
{
    return (unsigned)pm_composition_kind(key);
}

static unsigned kind_of_request(uint64_t key)
{
    (void)key;
    return 0;
}

/* Sessions of the same name are told apart by their paths. */
static void tell_apart(struct pm_comparison *all)
{
    for (unsigned i = 0; i < all->n_sessions[0]; i++)
        for (unsigned j = 0; j < all->n_sessions[1]; j++) {
            struct pm_compared_session *a = &all->sessions[0][i], *b = &all->sessions[1][j];
            if (strcmp(a->name, b->name) == 0 && strcmp(a->path, b->path) != 0) {
                snprintf(a->name, sizeof(a->name), "%.255s", a->path);
                snprintf(b->name, sizeof(b->name), "%.255s", b->path);
            }
        }
}

int pm_compare_end(struct pm_compare_input *input, const struct pm_compare_options *options,
                   struct pm_comparison *ret_comparison)
{
    struct pm_comparison *all = ret_comparison;
    struct pm_side steps[2] = {{0}}, requests[2] = {{0}};
    struct pm_match by_step = {0}, by_request = {0};
    int rc = 0;

    memset(all, 0, sizeof(*all));
    all->options = *options;
    for (unsigned side = 0; side < 2; side++) {
        struct pm_input_side *from = &input->sides[side];
        if (rc == 0)
            rc = list(from, false, &steps[side]);
        if (rc == 0)
            rc = list(from, true, &requests[side]);
        for (unsigned s = 0; s < from->n_sessions; s++) {
            all->n_steps[side] += from->sessions[s].steps;
            all->n_requests[side] += from->sessions[s].requests;
        }
        all->sessions[side] = from->sessions;
        all->n_sessions[side] = from->n_sessions;
        from->sessions = NULL;
        from->n_sessions = 0;
    }
    all->clocks_differ = strcmp(pm_judge_clock(all, 0), pm_judge_clock(all, 1)) != 0;
    if (rc == 0)
        rc = pm_judge_unmatched(all, steps, &input->step_strata);
    if (rc == 0)
        rc = pm_match_make(&by_step, steps, &input->step_strata, PM_STEP_VALUES, kind_of_step);
    if (rc == 0)
        rc = pm_match_make(&by_request, requests, &input->request_strata, PM_REQUEST_VALUES,
                           kind_of_request);
    if (rc == 0)
        rc = pm_judge(all, &by_step, &by_request);
    for (unsigned side = 0; side < 2; side++) {
        free(steps[side].tallies);
        free(steps[side].sessions);
        free(requests[side].tallies);
        free(requests[side].sessions);
    }
    pm_match_release(&by_step);
    pm_match_release(&by_request);
    if (rc == 0) {
        tell_apart(all);
        pm_judge_notes(all, &input->known);
    } else
        pm_comparison_release(all);
    return rc;
}

void pm_comparison_release(struct pm_comparison *comparison)
{
    free(comparison->sessions[0]);
    free(comparison->sessions[1]);
    comparison->sessions[0] = comparison->sessions[1] = NULL;
}
