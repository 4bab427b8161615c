/* A request's id as the settings want it recorded: plain, or hashed with the session's token. */
#ifndef PM_PROBE_REQUEST_NAME_H
#define PM_PROBE_REQUEST_NAME_H

#include "hook/compat.h"
#include "recorder/recorder.h"

/* The recorder's string id for the name of the request with this id (a str); 0 when it cannot be
 * had. */
uint32_t pm_request_name(struct pm_recorder *rec, enum pm_stream stream, PyObject *request_id);

#endif
