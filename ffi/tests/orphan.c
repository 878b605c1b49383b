/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Opens a handle with a guardian and without RT throttling. Forks a child that keeps copies of all
 * its descriptors, prints the child's number, and waits to be killed. Both end by themselves after
 * a minute. */
#define _GNU_SOURCE
#include "check.h"

#include <sys/types.h>
#include <unistd.h>

int main(void)
{
	struct stalld_options options;
	struct stalld *handle;
	pid_t child;

	memset(&options, 0, sizeof(options));
	options.sz = sizeof(options);
	options.flags = STALLD_GUARDIAN | STALLD_UNTHROTTLE;
	RETURNS(stalld_open(&handle, &options), 0);
	child = fork();
	CHECK(child >= 0);
	if (child > 0) {
		printf("child %d\n", (int)child);
		fflush(stdout);
	}
	sleep(60);
	return 0;
}
