/*
 * What a rule is, and what rules speak with. Inside src/explain; one thread.
 *
 * A rule gets the figures of an engine (or of the session), fills the finding where it has
 * something to say, and returns how it ended. Where it returns anything but PM_VERDICT_FOUND the
 * finding is thrown away, and `why` says with which figures.
 */
#ifndef PM_EXPLAIN_RULES_H
#define PM_EXPLAIN_RULES_H

#include "explain/explain.h"
#include "explain/look.h"

#define PM_WHY_MAX 160

/* The thresholds, by their names in rules.def. */
struct pm_limits {
#define PM_LIMIT(name, value, unit, sentence) double name;
#include "explain/rules.def"
};
extern const struct pm_limits pm_limits;

#define PM_RULE_ARGUMENT_ENGINE const struct pm_look *look
#define PM_RULE_ARGUMENT_SESSION const struct pm_looks *looks
#define PM_RULE(name, area, scope, sentence)                                                       \
    enum pm_verdict pm_rule_##name(PM_RULE_ARGUMENT_##scope, struct pm_finding *finding, char *why);
#include "explain/rules.def"

/* ---- filling a finding (finding.c) ---- */

void pm_title(struct pm_finding *finding, const char *format, ...) PM_PRINTF(2, 3);
/* One more sentence of evidence; beyond the room for them it is dropped. */
void pm_say(struct pm_finding *finding, const char *format, ...) PM_PRINTF(2, 3);
void pm_recommend(struct pm_finding *finding, const char *format, ...) PM_PRINTF(2, 3);
void pm_figure(struct pm_finding *finding, const char *name, const char *unit, double value);
/* now: an attribute's text or NULL; value: a printf format for one to try, or NULL. */
void pm_turn(struct pm_finding *finding, const char *flag, const char *direction, const char *now,
             const char *value, ...) PM_PRINTF(5, 6);
void pm_name_request(struct pm_finding *finding, const char *id);
void pm_name_worst(struct pm_finding *finding, const struct pm_worst *worst);
/* share: of the time seen, 0..1. */
void pm_cost(struct pm_finding *finding, double seconds, const char *of, double share);

/* Severity by a share of the time, as the thresholds say. */
enum pm_severity pm_severity_of(double share);

/* why, with the figures; returns the verdict, so that a rule can `return pm_because(…)`. */
enum pm_verdict pm_because(char *why, enum pm_verdict verdict, const char *format, ...)
    PM_PRINTF(3, 4);

/* Whether an engine has seen enough; else why says so. */
bool pm_enough(const struct pm_look *look, char *why);

/* "1.42 s", "120 ms", "35 us" into out; returns out. */
const char *pm_for_seconds(double seconds, char out[32]);
/* A share of two sums in per cent; 0 where there is nothing to divide by. */
double pm_pct(double part, double whole);

#endif
