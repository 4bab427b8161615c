/*
 * Captures: the half of the probe cuda_graph that learns which graph is which (graph_capture.c).
 * The other half, cuda_graph.c, follows steps and replays and declares the hooks. GIL held.
 *
 * The choke point is torch.cuda.CUDAGraph: capture_begin and capture_end are seen of every graph,
 * whoever captures it. Its label is
 *
 *   an encoder's or microbatched graph   the arguments of the method that captures it
 *   CUDAGraphWrapper, breakable graphs   the forward context, by which vLLM itself decides
 *   the newer runner's FULL graphs       told by their manager, which keeps them by descriptor,
 *                                        when its capture() returns
 *
 * While a capture is under way nothing is done but counting; Python objects are read before it
 * begins and after it has ended.
 */
#ifndef PM_PROBE_GRAPH_CAPTURE_H
#define PM_PROBE_GRAPH_CAPTURE_H

#include "probe/graph_table.h"
#include "probe/probe.h"

/* Shared with cuda_graph.c; the process's one and only. */
extern struct pm_graphs pm_graphs;

/* The step that is under way, for captures at run time: begin with the first of its captures, true
 * until the step has ended. */
void pm_captures_step(bool under_way, uint16_t instance);

/* Captures that were kept since the step under way began. */
uint32_t pm_captures_of_step(void);

/* Records the capture that is still gathering its pieces, if any. */
void pm_captures_flush(void);

/* Forgets everything (the table too). */
void pm_captures_reset(void);

/* The halves of the hooks in cuda_graph.def. */
void pm_capture_begin_enter(struct pm_call *call);
void pm_capture_end_leave(struct pm_call *call);
void pm_capture_profile_enter(struct pm_call *call);
void pm_capture_profile_leave(struct pm_call *call);
void pm_capture_model_enter(struct pm_call *call);
void pm_capture_model_leave(struct pm_call *call);
void pm_capture_manager_enter(struct pm_call *call);
void pm_capture_manager_leave(struct pm_call *call);
void pm_capture_breakable_enter(struct pm_call *call);
void pm_capture_ubatch_enter(struct pm_call *call);
void pm_capture_encoder_enter(struct pm_call *call);
void pm_capture_labelled_leave(struct pm_call *call); /* of these three */

#endif
