// What Glibc's module leaves out: eventfd, and the name of the calling thread.
#pragma once
#include <sys/eventfd.h>
#include <sys/prctl.h>

static inline int hub_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }
static inline void hub_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
