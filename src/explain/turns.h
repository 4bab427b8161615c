/* Options that several rules turn. Inside src/explain. */
#ifndef PM_EXPLAIN_TURNS_H
#define PM_EXPLAIN_TURNS_H

#include "explain/rules.h"
#include "view/kv.h"

/* More room for the KV cache (rule_kv.c). */
void pm_turn_kv_up(struct pm_finding *finding, const struct pm_look *look);

#endif
