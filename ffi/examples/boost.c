/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Boosts a task, starving or not, and waits until that is over: boost TID [MILLISECONDS]
 *
 *     cc boost.c $(pkg-config --cflags --libs libstalld) */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stalld.h>

static int complain(struct stalld *handle)
{
	fprintf(stderr, "boost: %s\n", stalld_last_error());
	stalld_close(handle);
	return 1;
}

int main(int argc, char **argv)
{
	struct stalld_options options;
	struct stalld_event event;
	struct stalld *handle;
	struct pollfd poller;
	int tid;

	if (argc < 2) {
		fprintf(stderr, "usage: boost TID [MILLISECONDS]\n");
		return 2;
	}
	tid = atoi(argv[1]);
	memset(&options, 0, sizeof(options));
	options.sz = sizeof(options);
	/* The guardian restores the task, even if this program is killed. */
	options.flags = STALLD_GUARDIAN;
	if (argc > 2)
		options.duration_ns = strtoull(argv[2], NULL, 10) * 1000000;
	if (stalld_open(&handle, &options) < 0)
		return complain(NULL);
	if (stalld_boost(handle, tid) < 0)
		return complain(handle);
	poller.fd = stalld_fd(handle);
	poller.events = POLLIN;
	for (;;) {
		while (stalld_next_event(handle, &event, sizeof(event)) == 1) {
			if (event.task.tid != tid)
				continue;
			switch (event.kind) {
			case STALLD_EVENT_BOOSTED:
				printf("boosted %d\n", tid);
				fflush(stdout);
				break;
			case STALLD_EVENT_RESTORED:
			case STALLD_EVENT_ENDED:
				printf("%s %d\n", event.kind == STALLD_EVENT_RESTORED ? "restored" : "ended", tid);
				stalld_close(handle);
				return 0;
			case STALLD_EVENT_FAILED:
				fprintf(stderr, "boost: %s\n", stalld_strerror(event.error));
				if (event.flags & STALLD_EVENT_RESTORE) {
					stalld_close(handle);
					return 1;
				}
				break;
			}
		}
		poll(&poller, 1, -1);
		if (stalld_dispatch(handle) == -STALLD_EPANIC)
			return complain(handle);
	}
}
