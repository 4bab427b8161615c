/* Records of a request's life (request_record.c); between the files of request_life. */
#ifndef PM_PROBE_REQUEST_RECORD_H
#define PM_PROBE_REQUEST_RECORD_H

#include "probe/request_life.h"

/* Its life must be followed. */
void pm_request_record_queued(struct pm_recorder *rec, struct pm_scheduler *scheduler,
                              struct pm_member *member, uint64_t at_ns);
void pm_request_record(struct pm_recorder *rec, struct pm_scheduler *scheduler,
                       struct pm_member *member);

#endif
