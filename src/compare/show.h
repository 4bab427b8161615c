/* What the three printers share (show.c). Not for other rooms. */
#ifndef PM_COMPARE_SHOW_H
#define PM_COMPARE_SHOW_H

#include "base/buf.h"
#include "compare/compare.h"

#define PM_SHOWN_MAX 48

/* A duration in a fitting unit: "1.234 ms". */
const char *pm_show_time(double ns, char out[PM_SHOWN_MAX]);
/* "+5.1 %"; of a difference: "+1.234 ms". For ratios, the difference in their own unit. */
const char *pm_show_change(const struct pm_change *change, char out[PM_SHOWN_MAX]);
/* "+4.6 to +5.6 %". */
const char *pm_show_interval(const struct pm_change *change, char out[PM_SHOWN_MAX]);
/* "1,234,567". */
const char *pm_show_count(uint64_t n, char out[PM_SHOWN_MAX]);
/* A value of a ratio with its unit: "123.4 /s". */
const char *pm_show_ratio(const struct pm_ratio_row *row, double value, char out[PM_SHOWN_MAX]);

/* Whether a row of the steps' table is worth a line when not all are asked for. */
bool pm_show_part(const struct pm_comparison *comparison, unsigned kind, unsigned value, bool all);

/* "1 session" or "3 sessions": then names, models and sizes are told one by one. */
void pm_show_session(const struct pm_compared_session *session, char *out, size_t size);

/* Sentences on what was matched and how; n-th, NULL after the last. */
unsigned pm_show_matched(const struct pm_comparison *comparison, char lines[8][256]);
void pm_show_method(const struct pm_comparison *comparison, char *out, size_t size);

#endif
