/*
 * Encoder, decoder and cross-attention times of one worker (encoder_decoder.c).
 */
#ifndef PM_VIEW_ENCODER_DECODER_H
#define PM_VIEW_ENCODER_DECODER_H

#include "view/common.h"

enum pm_component {
    PM_COMPONENT_ENCODER,
    PM_COMPONENT_DECODER,
    PM_COMPONENT_CROSS,
    PM_COMPONENTS,
};

struct pm_encoder_decoder {
    const char *model_type; /* as the process said it; "unknown" */
    struct pm_samples samples[PM_COMPONENTS];
    struct pm_stats stats[PM_COMPONENTS]; /* after pm_encoder_decoder_walk */
    uint64_t rows;
    uint64_t items;   /* inputs encoded */
    bool device;      /* encoder and cross-attention times are those of launches */
    bool recycled;    /* older steps had to go … */
    bool from_totals; /* … and the totals know the rest */
};

struct pm_outfile;

/* Walks the steps of worker n of an engine (as for pm_engine_worker; one that does not exist has
 * none); each component of a step also becomes a CSV row where file is not NULL. Release the sums
 * whatever it returned. */
PM_MUST_USE int pm_encoder_decoder_walk(const struct pm_session *session, size_t engine, unsigned n,
                                        struct pm_outfile *file,
                                        struct pm_encoder_decoder *ret_sums);
void pm_encoder_decoder_release(struct pm_encoder_decoder *sums);

/* Adds a section to a report's text, of each worker that samples; nothing where no encoder is. */
PM_MUST_USE int pm_encoder_decoder_report(const struct pm_session *session, bool colour,
                                          struct pm_buf *buf);

#endif
