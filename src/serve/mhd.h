/*
 * libmicrohttpd, opened when `serve` starts and not before: the program has to start on machines
 * without it, slim containers included. Inside the serve room, and only where it was there when
 * this was built (PM_HAVE_MHD). One thread. Owns nothing that has to be given back.
 */
#ifndef PM_SERVE_MHD_H
#define PM_SERVE_MHD_H

#include <sys/select.h>

#include <microhttpd.h>

#include "base/error.h"

struct pm_mhd {
#define X(name) __typeof__(&MHD_##name) name;
#include "serve/mhd.def"
};

/* Fills the table. 0, or -PM_EUNSUPPORTED with a sentence that says what to install. */
PM_MUST_USE int pm_mhd_load(struct pm_mhd *ret_mhd, struct pm_error *err);

#endif
