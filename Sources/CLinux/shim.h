// What Glibc's module leaves out: eventfd, the name of the calling thread, stdout's buffering.
#pragma once
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <stdio.h>

static inline int hub_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
// A killed program must not take its last lines with it: a pipe makes stdout block-buffered.
static inline void hub_buffer_lines(void) { setvbuf(stdout, NULL, _IOLBF, 0); }
static inline void hub_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
