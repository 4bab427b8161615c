/*
 * NVTX ranges for whatever tool is attached (Nsight Systems, …), through the injection interface of
 * NVTX 3 (https://github.com/NVIDIA/NVTX): the environment variable NVTX_INJECTION64_PATH names the
 * tool's library, whose function InitializeInjectionNvtx2 is given a way to ask for tables of
 * function pointers, and puts its own functions there. What it leaves out stays NULL and is not
 * called. No code of NVTX is in here, only what its documents fix: names, numbers and layouts.
 *
 * Pure C. pm_nvtx_open once, under a lock of the caller's (the GIL); after that any thread. What
 * the tool makes of a fork is its own affair: its functions stay where they are.
 */
#ifndef PM_GPU_NVTX_H
#define PM_GPU_NVTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PM_NVTX_PATH "NVTX_INJECTION64_PATH"

/* Whether a tool is attached to this process at all: nothing is loaded. */
bool pm_nvtx_wanted(void);

/* Loads the tool's library, the first time. False, with a clause in why, where there is none or it
 * refused; asked again it says the same. */
bool pm_nvtx_open(char *why, size_t size);

/* A range of the calling thread, in the domain "ProfileMate"; label is UTF-8. Nothing where no tool
 * is open. Push and pop on the same thread, in pairs. */
void pm_nvtx_push(const char *label, uint32_t argb, uint64_t payload);
void pm_nvtx_pop(void);

#endif
