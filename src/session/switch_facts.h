/*
 * What was switched while a session was recorded, and when: one record each, kept for the whole
 * run, so that no reader takes a pause for idleness (schema "switch").
 */
#ifndef PM_SESSION_SWITCH_FACTS_H
#define PM_SESSION_SWITCH_FACTS_H

#include <stdint.h>

enum pm_switch_kind {
    PM_SWITCH_START = 1,  /* recording began in a server that ran already */
    PM_SWITCH_STOP = 2,   /* it was ended; the server went on */
    PM_SWITCH_SET = 3,    /* a setting: what and value */
    PM_SWITCH_DETAIL = 4, /* everything that may be switched is on; value: for how many steps */
    PM_SWITCH_OVER = 5,   /* these steps are over: as before */
};

struct pm_switch_fact {
    uint64_t at_ns;
    uint32_t what;  /* string: the setting's field; "" where there is none */
    uint32_t value; /* string */
    uint8_t kind;   /* enum pm_switch_kind */
    uint8_t reserved[7];
};

#endif
