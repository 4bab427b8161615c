/*
 * The page at `/`, and the policy that it is sent with. Constant data; one thread.
 */
#ifndef PM_SERVE_PAGE_H
#define PM_SERVE_PAGE_H

#include <stddef.h>

struct pm_serve_page {
    const void *bytes;
    size_t n_bytes;
    const char *policy; /* content-security policy */
};
void pm_serve_page(struct pm_serve_page *ret_page);

#endif
