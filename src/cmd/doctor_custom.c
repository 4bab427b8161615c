/*
 * doctor, custom hooks (VLLM_PROFILING_CUSTOM): whether the setting is well-formed and may be
 * followed, whether the names exist in the Python that was asked, and what became of them in a
 * session.
 */
#include "cmd/doctor.h"
#include "cmd/ask.h"

#include <stdlib.h>
#include <string.h>

#include "session/attrs.h"
#include "view/view.h"

#define ADVICE_NAME                                                                                \
    "name the callable where it is defined, as pkg.mod:Class.method or pkg.mod:function"

static void tell(const char *sentence, void *arg)
{
    pm_find(arg, PM_MARK_PROBLEM, "custom-hook", "correct VLLM_PROFILING_CUSTOM", "%s", sentence);
}

/* The setting in the environment; NULL where there is none. Free it with free(). */
static struct pm_custom *parse(const char *text, struct pm_findings *findings)
{
    if (text == NULL || text[0] == '\0')
        return NULL;
    struct pm_custom *custom = malloc(sizeof(*custom));
    if (custom == NULL)
        return NULL;
    pm_custom_parse(text, custom, findings != NULL ? tell : NULL, findings);
    return custom;
}

void pm_doctor_custom_setting(struct pm_findings *findings, const struct pm_settings *settings)
{
    free(parse(settings->custom, findings));
}

struct pm_custom *pm_doctor_custom_asked(void)
{
    struct pm_settings *settings = malloc(sizeof(*settings));
    if (settings == NULL)
        return NULL;
    pm_settings_read(settings, NULL, NULL, NULL, NULL);
    struct pm_custom *custom = parse(settings->custom, NULL);
    free(settings);
    return custom;
}

void pm_doctor_custom_python(struct pm_findings *findings, const struct pm_custom *custom,
                             const struct pm_answers *answers)
{
    findings->section = "Custom hooks";
    for (size_t i = 0; custom != NULL && i < custom->count; i++) {
        const char *name = custom->hooks[i].name, *answer = NULL;
        for (size_t k = 0; k < answers->count && answer == NULL; k++)
            if (strcmp(answers->lines[k].key, "hook") == 0 &&
                strcmp(answers->lines[k].value[0], name) == 0)
                answer = answers->lines[k].value[1];
        if (answer == NULL || custom->hooks[i].refused != NULL)
            continue;
        if (strcmp(answer, "found") == 0)
            pm_find(findings, PM_MARK_FINE, "custom-hook", NULL, "%s is there", name);
        else if (strcmp(answer, "elsewhere") == 0)
            pm_find(findings, PM_MARK_WARNING, "custom-hook", ADVICE_NAME,
                    "%s is imported there from another module: only calls by way of this one are "
                    "seen",
                    name);
        else if (strcmp(answer, "no package") == 0)
            pm_find(findings, PM_MARK_NOTE, "custom-hook", NULL,
                    "%s: no package of that name was found from here", name);
        else
            pm_find(findings, PM_MARK_PROBLEM, "custom-hook", ADVICE_NAME, "%s is not there (%s)",
                    name, answer);
    }
}

static void one_hook(struct pm_findings *findings, const char *name,
                     const struct pm_hook_state *state)
{
    if (state == NULL)
        pm_find(findings, PM_MARK_NOTE, "custom-hook", NULL, "%s: no process imported its module",
                name);
    else if (state->fired > 0)
        pm_find(findings, PM_MARK_FINE, "custom-hook", NULL, "%s: called in %u process%s", name,
                state->fired, state->fired == 1 ? "" : "es");
    else if (state->patched > 0)
        pm_find(findings, PM_MARK_NOTE, "custom-hook", NULL,
                "%s: in place, never called, or only by code that had taken it out of its module "
                "before (from … import)",
                name);
    else if (state->missing > 0)
        pm_find(findings, PM_MARK_PROBLEM, "custom-hook", ADVICE_NAME,
                "%s: its module was imported and has no such callable", name);
    /* A refused one has a note of its own. */
}

void pm_doctor_custom_session(struct pm_findings *findings, const struct pm_session *session,
                              const struct pm_hook_state *states, size_t count)
{
    const char *section = findings->section;
    findings->section = "Custom hooks";
    struct pm_custom *custom =
        parse(pm_session_attr(session, PM_ATTR_SETTING_PREFIX "custom"), findings);
    for (size_t i = 0; custom != NULL && i < custom->count; i++) {
        const struct pm_hook_state *state = NULL;
        for (size_t k = 0; k < count && state == NULL; k++)
            if (strcmp(states[k].target, custom->hooks[i].name) == 0)
                state = &states[k];
        if (custom->hooks[i].refused == NULL)
            one_hook(findings, custom->hooks[i].name, state);
    }
    findings->section = section;
    free(custom);
}
