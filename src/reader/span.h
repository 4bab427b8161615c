/*
 * A session seen through a span: which facts its cursors hand out (pm_session_see of reader.h).
 * Inside the reader; made once per session, read by all its cursors, owned by the session.
 *
 * A fact of a step goes by the number of its step, so that the facts of one step are all in or all
 * out, whichever process recorded them; any other goes by its moment.
 */
#ifndef PM_READER_SPAN_H
#define PM_READER_SPAN_H

#include "reader/internal.h"

enum pm_span_way {
    PM_SPAN_ALWAYS, /* what the session is made of: names of layers, captures of graphs */
    PM_SPAN_NEVER,  /* sums since the process began, told again at the head of a segment */
    PM_SPAN_STEP,   /* by the number of its step */
    PM_SPAN_TIME,   /* by its moment */
    PM_SPAN_LIFE,   /* a request: whether it lived in the span */
};

/* How the facts of one schema are judged. */
struct pm_span_rule {
    enum pm_span_way way;
    const struct pm_field *step, *instance, *time, *until;
};

/* The rule for a schema, which must live as long as the rule. */
void pm_span_rule_make(struct pm_span_rule *ret_rule, const struct pm_schema *schema);

/* Whether a fact belongs to what is seen of the process. */
bool pm_span_has(const struct pm_span_view *view, const struct pm_process *process,
                 const struct pm_span_rule *rule, const uint8_t *payload);

/* Whether a fact that does not is so late that none that follows it does. */
bool pm_span_is_over(const struct pm_span_view *view, const struct pm_span_rule *rule,
                     const uint8_t *payload);

/* Whether a step of that scheduler or worker does. */
bool pm_span_has_step(const struct pm_span_view *view, const struct pm_process *process,
                      unsigned instance, uint64_t step);

uint64_t pm_span_from_ns(const struct pm_span_view *view);
/* Segments that end before this moment hold nothing of the span: they are not read. Some time
 * before its beginning, for a segment's head tells the time when it was made. */
uint64_t pm_span_skip_ns(const struct pm_span_view *view);
uint64_t pm_span_to_ns(const struct pm_span_view *view);
void pm_span_free(struct pm_span_view *view);

#endif
