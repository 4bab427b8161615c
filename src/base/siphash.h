/* SipHash-2-4 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): a keyed 64-bit hash
 * of any bytes. */
#ifndef PM_BASE_SIPHASH_H
#define PM_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/* The hash of bytes under a 16-byte key. */
uint64_t pm_siphash(const uint8_t key[16], const void *bytes, size_t n_bytes);

#endif
