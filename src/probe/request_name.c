/* See request_name.h. */
#include "probe/request_name.h"

#include <stdio.h>
#include <string.h>

#include "base/siphash.h"
#include "hook/guard.h"
#include "probe/probe.h"

uint32_t pm_request_name(struct pm_recorder *rec, enum pm_stream stream, PyObject *request_id)
{
    Py_ssize_t bytes;
    const char *text =
        PyUnicode_Check(request_id) ? PyUnicode_AsUTF8AndSize(request_id, &bytes) : NULL;
    if (text == NULL) {
        pm_guard_discard();
        return 0;
    }
    if (pm_facts_settings()->request_ids != PM_REQUEST_IDS_HASH)
        return pm_recorder_string(rec, stream, text, (size_t)bytes);
    char hashed[24];
    int n =
        snprintf(hashed, sizeof hashed, "h%016llx",
                 (unsigned long long)pm_siphash(pm_recorder_head(rec)->token, text, (size_t)bytes));
    return pm_recorder_string(rec, stream, hashed, (size_t)n);
}
