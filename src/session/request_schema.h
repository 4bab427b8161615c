/*
 * What the records of a request's life look like on disk (request_facts.h says what they mean):
 * written by the probe request_life. Constant data.
 */
#ifndef PM_SESSION_REQUEST_SCHEMA_H
#define PM_SESSION_REQUEST_SCHEMA_H

#include "session/schema.h"

extern const struct pm_schema pm_request_queued_schema; /* a request has come */
extern const struct pm_schema pm_request_schema;        /* it is over */
extern const struct pm_schema pm_request_open_schema;   /* it is not, at the head of a segment */

#endif
