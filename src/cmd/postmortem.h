/*
 * The two forms of `profilemate postmortem`: a page of text, and JSON. Used by its command
 * (postmortem.c); nothing that clients chose is in either unless asked for.
 */
#ifndef PM_CMD_POSTMORTEM_H
#define PM_CMD_POSTMORTEM_H

#include "base/json.h"
#include "live/autopsy.h"

/* plain_ids: requests by the ids that clients may have chosen, else by a digest of them. */
void pm_postmortem_json(struct pm_json *json, const struct pm_autopsy *autopsy, bool plain_ids);

/* A request's name as it is shown: `out` holds PM_REQUEST_ID_MAX bytes. */
void pm_postmortem_name(const char *id, bool plain, char *out, size_t size);

#endif
