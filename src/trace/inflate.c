/*
 * gzip, streamed (see inflate.h). One thread at a time.
 */
#include "trace/inflate.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#ifdef PM_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif

#define INPUT_BYTES 65536u
#define LOOK_BACK 16u /* ISA-L hands back up to 8 bytes that it had read ahead */

/* What one call of a codec came to. */
enum outcome { MORE, MEMBER_END, BAD };

static int zlib_open(struct pm_inflate *gz)
{
    z_stream *z = calloc(1, sizeof(*z));
    if (z == NULL)
        return -PM_ENOMEM;
    if (inflateInit2(z, 15 + 16) != Z_OK) { /* 16: gzip headers and trailers only */
        free(z);
        return -PM_ENOMEM;
    }
    gz->codec = z;
    return 0;
}

static enum outcome zlib_step(struct pm_inflate *gz, uint8_t *out, size_t n, size_t *ret_made)
{
    z_stream *z = gz->codec;
    z->next_in = gz->input + gz->next;
    z->avail_in = (uInt)(gz->end - gz->next);
    z->next_out = out;
    z->avail_out = (uInt)n;
    int result = inflate(z, Z_NO_FLUSH);
    gz->next = gz->end - z->avail_in;
    *ret_made = n - z->avail_out;
    if (result == Z_STREAM_END)
        return inflateReset(z) == Z_OK ? MEMBER_END : BAD;
    return result == Z_OK || result == Z_BUF_ERROR ? MORE : BAD;
}

static void zlib_close(struct pm_inflate *gz)
{
    if (gz->codec != NULL)
        inflateEnd(gz->codec);
    free(gz->codec);
}

#ifdef PM_HAVE_ISAL
static int isal_open(struct pm_inflate *gz)
{
    struct inflate_state *state = calloc(1, sizeof(*state));
    if (state == NULL)
        return -PM_ENOMEM;
    isal_inflate_init(state);
    state->crc_flag = ISAL_GZIP;
    gz->codec = state;
    return 0;
}

static enum outcome isal_step(struct pm_inflate *gz, uint8_t *out, size_t n, size_t *ret_made)
{
    struct inflate_state *state = gz->codec;
    state->next_in = gz->input + gz->next;
    state->avail_in = (uint32_t)(gz->end - gz->next);
    state->next_out = out;
    state->avail_out = (uint32_t)n;
    int result = isal_inflate(state);
    gz->next = gz->end - state->avail_in;
    *ret_made = n - state->avail_out;
    if (result < 0)
        return BAD;
    if (state->block_state != ISAL_BLOCK_FINISH)
        return MORE;
    /* Whole bytes still in its bit buffer belong to the next member. */
    gz->next -= (size_t)(state->read_in_length > 0 ? state->read_in_length / 8 : 0);
    isal_inflate_reset(state);
    state->crc_flag = ISAL_GZIP;
    return MEMBER_END;
}
#endif

static int open_library(struct pm_inflate *gz)
{
#ifdef PM_HAVE_ISAL
    if (gz->inflater == PM_INFLATE_ISAL)
        return isal_open(gz);
#endif
    return zlib_open(gz);
}

int pm_inflate_init(struct pm_inflate *gz, pm_inflate_read_fn read, void *arg,
                    enum pm_inflate_library library)
{
    int err;
    *gz = (struct pm_inflate){.read = read, .arg = arg, .inflater = library};
#ifdef PM_HAVE_ISAL
    if (library == PM_INFLATE_BEST)
        gz->inflater = PM_INFLATE_ISAL;
#else
    if (library == PM_INFLATE_ISAL)
        return -PM_EUNSUPPORTED;
    gz->inflater = PM_INFLATE_ZLIB;
#endif
    gz->next = gz->end = LOOK_BACK;
    gz->input = calloc(1, LOOK_BACK + INPUT_BYTES);
    if (gz->input == NULL)
        return -PM_ENOMEM;
    err = open_library(gz);
    if (err != 0)
        pm_inflate_release(gz);
    return err;
}

void pm_inflate_release(struct pm_inflate *gz)
{
    if (gz->inflater == PM_INFLATE_ZLIB)
        zlib_close(gz);
    else
        free(gz->codec);
    free(gz->input);
    *gz = (struct pm_inflate){0};
}

/* Refills the input when it holds fewer than want bytes; keeps what is left and a little of what
 * came before. False at a failure of read. */
static bool refill(struct pm_inflate *gz, size_t want)
{
    while (!gz->input_ended && gz->end - gz->next < want) {
        size_t keep = gz->end - gz->next;
        memmove(gz->input, gz->input + gz->next - LOOK_BACK, LOOK_BACK + keep);
        gz->next = LOOK_BACK;
        gz->end = LOOK_BACK + keep;
        int64_t got = gz->read(gz->arg, gz->input + gz->end, INPUT_BYTES - keep);
        if (got < 0) {
            gz->status = (int)got;
            return false;
        }
        if (got == 0)
            gz->input_ended = true;
        gz->end += (size_t)got;
    }
    return true;
}

/* Between members: whether another one begins. */
static bool next_member(struct pm_inflate *gz)
{
    const uint8_t *p = gz->input + gz->next;
    size_t left = gz->end - gz->next;
    if (left >= 2 && p[0] == 0x1F && p[1] == 0x8B)
        return true;
    if (gz->members == 0 && left > 0) {
        gz->state = left == 1 && p[0] == 0x1F ? PM_INFLATE_CUT : PM_INFLATE_DAMAGED;
        return false;
    }
    gz->state = PM_INFLATE_COMPLETE;
    for (;;) { /* count what is behind the last member */
        gz->trailing += gz->end - gz->next;
        gz->next = gz->end;
        if (gz->input_ended || !refill(gz, 1))
            return false;
    }
}

int64_t pm_inflate_read(struct pm_inflate *gz, uint8_t *out, size_t n)
{
    size_t made = 0;
    if (n > UINT32_MAX)
        n = UINT32_MAX;
    while (made < n && gz->state == PM_INFLATE_GOING) {
        if (!refill(gz, 2))
            return gz->status;
        if (!gz->within && !next_member(gz))
            break;
        size_t before = gz->next, step = 0;
        enum outcome outcome;
#ifdef PM_HAVE_ISAL
        if (gz->inflater == PM_INFLATE_ISAL)
            outcome = isal_step(gz, out + made, n - made, &step);
        else
#endif
            outcome = zlib_step(gz, out + made, n - made, &step);
        gz->within = true;
        made += step;
        gz->consumed += (uint64_t)gz->next - (uint64_t)before; /* may go back a little */
        if (outcome == BAD) {
            gz->state = PM_INFLATE_DAMAGED;
        } else if (outcome == MEMBER_END) {
            gz->members++;
            gz->within = false;
        } else if (step == 0 && gz->input_ended && gz->next == gz->end) {
            gz->state = PM_INFLATE_CUT;
        }
    }
    if (gz->status < 0)
        return gz->status;
    return (int64_t)made;
}
