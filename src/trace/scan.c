/*
 * The structural scan (see scan.h). Pure, any thread.
 */
#include "trace/scan.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* The masks of 64 bytes: bit i stands for byte i. */
struct masks {
    uint64_t quote, backslash, bracket;
};

/* What is carried from block to block. */
struct carry {
    uint64_t in_string; /* all ones while inside a string */
    uint64_t escaped;   /* 1: the next byte follows an unescaped backslash */
    uint64_t backslash; /* any so far */
};

/* Bit i of the result: the exclusive-or of bits 0..i. */
static inline __attribute__((always_inline)) uint64_t prefix_xor_shifts(uint64_t x)
{
    x ^= x << 1;
    x ^= x << 2;
    x ^= x << 4;
    x ^= x << 8;
    x ^= x << 16;
    x ^= x << 32;
    return x;
}

/* The bytes that a backslash escapes. Backslashes are rare in traces, so this walks them. */
static uint64_t find_escaped(uint64_t backslash, struct carry *carry)
{
    uint64_t escaped = carry->escaped;
    carry->escaped = 0;
    carry->backslash |= backslash;
    while (backslash != 0) {
        unsigned i = (unsigned)__builtin_ctzll(backslash);
        backslash &= backslash - 1;
        if ((escaped >> i & 1) != 0)
            continue;
        if (i == 63)
            carry->escaped = 1;
        else
            escaped |= 2ull << i;
    }
    return escaped;
}

/* Writes the positions of the set bits; may write up to 64 entries beyond the ones that count. */
static inline __attribute__((always_inline)) uint32_t *flatten(uint32_t *out, uint64_t bits,
                                                               uint32_t base)
{
    unsigned n = (unsigned)__builtin_popcountll(bits);
    unsigned done = 0;
    do {
        for (unsigned k = 0; k < 8; k++) {
            out[done + k] = base + (bits != 0 ? (uint32_t)__builtin_ctzll(bits) : 0);
            bits &= bits - 1;
        }
        done += 8;
    } while (__builtin_expect(done < n, 0));
    return out + n;
}

/* One block: masks in, positions out. `prefix_xor` is a macro or function of one argument. */
#define BLOCK(masks, carry, base, out, prefix_xor)                                                 \
    do {                                                                                           \
        uint64_t quote = (masks).quote;                                                            \
        if (__builtin_expect(((masks).backslash | (carry).escaped) != 0, 0))                       \
            quote &= ~find_escaped((masks).backslash, &(carry));                                   \
        uint64_t inside = prefix_xor(quote) ^ (carry).in_string;                                   \
        (carry).in_string = (uint64_t)((int64_t)inside >> 63);                                     \
        (out) = flatten((out), quote | ((masks).bracket & ~inside), (uint32_t)(base));             \
    } while (0)

/* ---- plain C: also for the last, partial block ----------------------------------------------- */

static struct masks masks_plain(const uint8_t *p, size_t n)
{
    struct masks m = {0, 0, 0};
    for (size_t i = 0; i < n; i++) {
        uint64_t bit = 1ull << i;
        uint8_t c = p[i], folded = (uint8_t)(c | 0x20);
        m.quote |= c == '"' ? bit : 0;
        m.backslash |= c == '\\' ? bit : 0;
        m.bracket |= folded == '{' || folded == '}' ? bit : 0; /* also [ and ]: 0x5B, 0x5D */
    }
    return m;
}

static uint32_t *scan_plain(const uint8_t *text, size_t from, size_t n, struct carry *carry,
                            uint32_t *out)
{
    for (size_t i = from; i < n; i += 64) {
        struct masks m = masks_plain(text + i, n - i < 64 ? n - i : 64);
        BLOCK(m, *carry, i, out, prefix_xor_shifts);
    }
    return out;
}

#if defined(__x86_64__)
/* ---- SSE2: every x86-64 ---------------------------------------------------------------------- */

static inline uint64_t match_sse2(const __m128i v[4], char c)
{
    __m128i wanted = _mm_set1_epi8(c);
    uint64_t m = 0;
    for (unsigned k = 0; k < 4; k++)
        m |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[k], wanted)) << (16 * k);
    return m;
}

static uint32_t *scan_sse2(const uint8_t *text, size_t n, struct carry *carry, uint32_t *out)
{
    const __m128i fold = _mm_set1_epi8(0x20);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m128i v[4], folded[4];
        for (unsigned k = 0; k < 4; k++) {
            v[k] = _mm_loadu_si128((const __m128i *)(const void *)(text + i + 16 * k));
            folded[k] = _mm_or_si128(v[k], fold);
        }
        struct masks m = {match_sse2(v, '"'), match_sse2(v, '\\'),
                          match_sse2(folded, '{') | match_sse2(folded, '}')};
        BLOCK(m, *carry, i, out, prefix_xor_shifts);
    }
    return scan_plain(text, i, n, carry, out);
}

/* ---- AVX2 ------------------------------------------------------------------------------------ */

#define TARGET_AVX2 __attribute__((target("avx2,pclmul,bmi,bmi2,popcnt")))

TARGET_AVX2 static inline uint64_t match_avx2(__m256i low, __m256i high, char c)
{
    __m256i wanted = _mm256_set1_epi8(c);
    uint32_t l = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted));
    uint32_t h = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted));
    return l | (uint64_t)h << 32;
}

/* A carry-less multiplication by all ones is the prefix exclusive-or. */
TARGET_AVX2 static inline uint64_t prefix_xor_clmul(uint64_t x)
{
    __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)x), _mm_set1_epi8((char)0xFF), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

TARGET_AVX2 static uint32_t *scan_avx2(const uint8_t *text, size_t n, struct carry *carry,
                                       uint32_t *out)
{
    const __m256i fold = _mm256_set1_epi8(0x20);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(text + i));
        __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(text + i + 32));
        __m256i low_folded = _mm256_or_si256(low, fold), high_folded = _mm256_or_si256(high, fold);
        struct masks m = {match_avx2(low, high, '"'), match_avx2(low, high, '\\'),
                          match_avx2(low_folded, high_folded, '{') |
                              match_avx2(low_folded, high_folded, '}')};
        BLOCK(m, *carry, i, out, prefix_xor_clmul);
    }
    return scan_plain(text, i, n, carry, out);
}
#endif

/* ---- choosing -------------------------------------------------------------------------------- */

bool pm_scan_available(enum pm_scan_kind kind)
{
    switch (kind) {
    case PM_SCAN_BEST:
    case PM_SCAN_PLAIN:
        return true;
#if defined(__x86_64__)
    case PM_SCAN_SSE2:
        return true;
    case PM_SCAN_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") &&
               __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("popcnt");
#else
    case PM_SCAN_SSE2:
    case PM_SCAN_AVX2:
        return false;
#endif
    }
    return false;
}

enum pm_scan_kind pm_scan_best(void)
{
    if (pm_scan_available(PM_SCAN_AVX2))
        return PM_SCAN_AVX2;
    return pm_scan_available(PM_SCAN_SSE2) ? PM_SCAN_SSE2 : PM_SCAN_PLAIN;
}

const char *pm_scan_name(enum pm_scan_kind kind)
{
    static const char *const names[] = {"best", "plain", "sse2", "avx2"};
    return names[kind];
}

void pm_scan_text(struct pm_scan *scan, const uint8_t *text, size_t n_bytes, enum pm_scan_kind kind)
{
    struct carry carry = {0, 0, 0};
    uint32_t *end = scan->at;
    if (kind == PM_SCAN_BEST)
        kind = pm_scan_best();
#if defined(__x86_64__)
    if (kind == PM_SCAN_AVX2)
        end = scan_avx2(text, n_bytes, &carry, end);
    else if (kind == PM_SCAN_SSE2)
        end = scan_sse2(text, n_bytes, &carry, end);
    else
#endif
        end = scan_plain(text, 0, n_bytes, &carry, end);
    scan->n = (size_t)(end - scan->at);
    scan->backslash = carry.backslash != 0;
    scan->in_string = carry.in_string != 0;
}
