/* See caution.h. */
#include "view/caution.h"

#include <string.h>

#include "session/attrs.h"
#include "view/switches.h"

/* An attribute that is there, with this beginning, only where the thing is so; where a second one
 * has to be there as well, that. */
static const struct caution {
    const char *attr, *begin, *also, *sentence;
} cautions[] = {
    {PM_ATTR_LAUNCH_BLOCKING, "", NULL,
     "CUDA_LAUNCH_BLOCKING was set: each kernel launch waited for its end, so that times and gaps "
     "are not those of normal operation"},
    {PM_ATTR_LAYERS, "modules", PM_ATTR_TORCH_PROFILER,
     "layers were timed in the model's modules, and torch's profiler was set up as well: for what "
     "kernels take on a device believe its trace, for how a pass is shared out among layers the "
     "timers; steps that were traced are slower in both, and classes of kernels (gemm) are no "
     "kinds of modules (attention, mlp)"},
};

static bool holds(const struct pm_session *session, const struct caution *caution)
{
    const char *value = pm_session_attr(session, caution->attr);
    return value != NULL && strncmp(value, caution->begin, strlen(caution->begin)) == 0 &&
           (caution->also == NULL || pm_session_attr(session, caution->also) != NULL);
}

const char *pm_session_caution(const struct pm_session *session, size_t n)
{
    for (size_t i = 0; i < sizeof(cautions) / sizeof(cautions[0]); i++)
        if (holds(session, &cautions[i]) && n-- == 0)
            return cautions[i].sentence;
    return NULL;
}

static void put_sentence(const char *sentence, void *arg)
{
    pm_json_text(arg, sentence);
}

void pm_put_cautions(struct pm_json *json, const struct pm_session *session)
{
    const char *sentence;
    for (size_t n = 0; (sentence = pm_session_caution(session, n)) != NULL; n++)
        pm_json_text(json, sentence);
    pm_switches_tell(session, put_sentence, json);
}
