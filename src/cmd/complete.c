/*
 * Completing a session. See complete.h.
 */
#include "cmd/complete.h"

#include <unistd.h>

#include "cmd/cmd.h"
#include "cmd/old.h"
#include "recorder/birth.h"

bool pm_session_is_running(const struct pm_session *session)
{
    for (size_t i = 0; i < pm_session_process_count(session); i++)
        if (pm_process_info(pm_session_process(session, i))->life == PM_LIFE_RUNNING)
            return true;
    return false;
}

int pm_complete_open(const struct pm_place *place, struct pm_session **ret_session,
                     struct pm_error *err)
{
    struct pm_error trouble = {""};
    if (place->old)
        return pm_old_open(place, ret_session, err);
    /* Nothing to do for most: only where the session lies on a network file system. */
    if (place->owner == geteuid() && pm_birth_unspool(place->path, NULL, &trouble) != 0)
        pm_complain("%s, the records are read where they are", trouble.text);
    return pm_session_open(ret_session, place->path, err);
}
