/* See step_mark.h. */
#include "probe/step_mark.h"

#include <stdio.h>

#include "base/siphash.h"
#include "hook/guard.h"
#include "hook/read.h"
#include "probe/probe.h"
#include "session/attrs.h"

static struct pm_name n_scheduled_new_reqs = PM_NAME("scheduled_new_reqs");
static struct pm_name n_req_id = PM_NAME("req_id");

void pm_step_mark(const char *prefix, unsigned instance, uint64_t step, PyObject *output,
                  uint8_t *marks)
{
    struct pm_recorder *rec = pm_facts();
    char key[64], value[64];
    if (*marks >= PM_ATTR_MARKS || rec == NULL)
        return;
    PyObject *list = pm_read_attr(output, &n_scheduled_new_reqs);
    PyObject *first = list != NULL && PyList_Check(list) && PyList_Size(list) > 0
                          ? PyList_GetItem(list, 0) /* borrowed */
                          : NULL;
    PyObject *id = first != NULL ? pm_read_attr(first, &n_req_id) : NULL;
    Py_ssize_t bytes = 0;
    const char *text =
        id != NULL && PyUnicode_Check(id) ? PyUnicode_AsUTF8AndSize(id, &bytes) : NULL;
    if (text != NULL) {
        snprintf(key, sizeof key, "%s%u.%u", prefix, instance, *marks);
        snprintf(value, sizeof value, "%llu %016llx", (unsigned long long)step,
                 (unsigned long long)pm_siphash(pm_recorder_head(rec)->token, text, (size_t)bytes));
        pm_facts_attr(key, value);
        (*marks)++;
    }
    pm_guard_discard();
    Py_XDECREF(id);
    Py_XDECREF(list);
}
