/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Prints the tasks that wait for a CPU now, the longest wait first, with their hogs. With a number
 * N, it scans N times and prints only how long a scan takes.
 *
 *     cc waiters.c $(pkg-config --cflags --libs libstalld) */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <stalld.h>

static int longest_first(const void *left, const void *right)
{
	const struct stalld_waiter *a = left, *b = right;

	return (a->wait_ns < b->wait_ns) - (a->wait_ns > b->wait_ns);
}

static void print_name(const char *comm)
{
	int i;

	for (i = 0; comm[i]; i++)
		putchar(comm[i] >= ' ' && comm[i] <= '~' ? comm[i] : '?');
}

static double microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* Scans into new memory. Sets *count to the number of waiters. Returns NULL on failure. */
static struct stalld_waiter *scan(struct stalld *handle, int *count)
{
	struct stalld_waiter *waiters = NULL;
	int room = 64;

	for (;;) {
		free(waiters);
		waiters = malloc((size_t)room * sizeof(*waiters));
		if (!waiters)
			return NULL;
		*count = stalld_snapshot(handle, waiters, (size_t)room, sizeof(*waiters));
		if (*count < 0) {
			free(waiters);
			return NULL;
		}
		if (*count <= room)
			return waiters;
		/* The next scan may find more waiters. */
		room = *count * 2;
	}
}

static int by_time(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

static int measure(struct stalld *handle, int scans)
{
	double *times = calloc((size_t)scans, sizeof(*times));
	int i, count;

	if (!times)
		return 1;
	for (i = 0; i < scans; i++) {
		double start = microseconds();
		struct stalld_waiter *waiters = scan(handle, &count);

		if (!waiters) {
			free(times);
			return 1;
		}
		times[i] = microseconds() - start;
		free(waiters);
	}
	qsort(times, (size_t)scans, sizeof(*times), by_time);
	printf("median %.1f us\n", times[scans / 2]);
	free(times);
	return 0;
}

int main(int argc, char **argv)
{
	struct stalld *handle;
	struct stalld_waiter *waiters;
	int i, count, scans = argc > 1 ? atoi(argv[1]) : 0;

	if (stalld_open(&handle, NULL) < 0) {
		fprintf(stderr, "waiters: %s\n", stalld_last_error());
		return 1;
	}
	if (scans > 0) {
		i = measure(handle, scans);
		stalld_close(handle);
		return i;
	}
	waiters = scan(handle, &count);
	if (!waiters) {
		fprintf(stderr, "waiters: %s\n", stalld_last_error());
		stalld_close(handle);
		return 1;
	}
	qsort(waiters, (size_t)count, sizeof(*waiters), longest_first);
	printf("%8s %3s %5s %12s  %-16s %s\n", "TID", "CPU", "PRIO", "WAIT/ms", "NAME", "BEHIND");
	for (i = 0; i < count; i++) {
		const struct stalld_waiter *waiter = &waiters[i];

		printf("%8d %3u %5d %12.3f  ", waiter->task.tid, waiter->task.cpu, waiter->task.prio,
		       (double)waiter->wait_ns / 1e6);
		print_name(waiter->task.comm);
		if (waiter->hog.tid) {
			printf(" behind %d ", waiter->hog.tid);
			print_name(waiter->hog.comm);
		}
		putchar('\n');
	}
	free(waiters);
	stalld_close(handle);
	return 0;
}
