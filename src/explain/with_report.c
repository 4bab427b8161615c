/* The reports with the findings at their head, see explain.h. */
#include "explain/explain.h"

#define SHOWN 6 /* findings at the head of a text report */
#define SHOWN_BRIEF 3

struct head {
    struct pm_findings findings;
    uint64_t start_ns;
};

static void put_text(struct pm_buf *buf, bool colour, bool brief, void *arg)
{
    const struct head *head = arg;
    pm_findings_text(buf, &head->findings,
                     &(struct pm_findings_style){
                         .colour = colour, .brief = brief, .limit = brief ? SHOWN_BRIEF : SHOWN},
                     head->start_ns);
}

static void put_json(struct pm_json *json, void *arg)
{
    const struct head *head = arg;
    pm_findings_json(json, &head->findings, head->start_ns);
}

static int head_make(const struct pm_session *session, const struct pm_report_options *options,
                     struct head *head, struct pm_report_options *ret_options, struct pm_error *err)
{
    head->start_ns = pm_session_info(session)->start_mono_ns;
    const int rc =
        pm_explain(session, options != NULL ? options->window : NULL, &head->findings, err);
    if (rc != 0)
        return rc;
    *ret_options = options != NULL ? *options : (struct pm_report_options){0};
    ret_options->findings_text = put_text;
    ret_options->findings_json = put_json;
    ret_options->findings_arg = head;
    return 0;
}

int pm_explain_report_text(const struct pm_session *session,
                           const struct pm_report_options *options, FILE *out, struct pm_error *err)
{
    struct pm_report_options with;
    struct head head;
    int rc = head_make(session, options, &head, &with, err);

    if (rc != 0)
        return rc;
    rc = pm_view_report_text(session, &with, out, err);
    pm_findings_release(&head.findings);
    return rc;
}

int pm_explain_report_json(const struct pm_session *session,
                           const struct pm_report_options *options, FILE *out, struct pm_error *err)
{
    struct pm_report_options with;
    struct head head;
    int rc = head_make(session, options, &head, &with, err);

    if (rc != 0)
        return rc;
    rc = pm_view_report_json(session, &with, out, err);
    pm_findings_release(&head.findings);
    return rc;
}
