/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Prints the events of libstalld, until SIGINT or SIGTERM:
 *
 *     watch [-b] [-g] [-f] [-u] [-t MILLISECONDS] [-d MILLISECONDS] [-i REGEXES] [-j JOURNAL]
 *
 * -b boosts starving tasks, -g starts a guardian that restores all if this program is killed, -f
 * boosts by SCHED_FIFO, -u turns RT throttling off meanwhile. -t is the threshold, -d the length of
 * a boost, -i ignores processes by their names, and -j keeps the restore records in a file.
 *
 *     cc watch.c $(pkg-config --cflags --libs libstalld) */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <stalld.h>

static struct stalld *handle;

static void stop(int signal)
{
	(void)signal;
	stalld_stop(handle);
}

static void log_line(void *userdata, int level, const char *message)
{
	(void)userdata;
	(void)level;
	fprintf(stderr, "watch: %s\n", message);
}

static const char *policy_name(int policy)
{
	static const char *const names[] = { "OTHER", "FIFO", "RR", "BATCH", "?", "IDLE", "DEADLINE", "EXT" };

	return policy >= 0 && policy < (int)(sizeof(names) / sizeof(names[0])) ? names[policy] : "?";
}

/* A name may hold anything but NUL: keep control characters away from the terminal. */
static const char *printable(const char *comm, char *buffer)
{
	int i;

	for (i = 0; comm[i]; i++)
		buffer[i] = comm[i] >= ' ' && comm[i] <= '~' ? comm[i] : '?';
	buffer[i] = '\0';
	return buffer;
}

static void print(const struct stalld_event *event)
{
	char name[16], hog[16];
	double length = (double)event->length_ns / 1e6;

	if (event->lost)
		printf("(%u events lost)\n", event->lost);
	printable(event->task.comm, name);
	printable(event->hog.comm, hog);
	switch (event->kind) {
	case STALLD_EVENT_BACKEND:
		printf("backend %s\n", stalld_backend_name(event->backend));
		break;
	case STALLD_EVENT_STARVING:
		printf("starving %d (%s) cpu %u for %.3f ms", event->task.tid, name, event->task.cpu,
		       (double)event->wait_ns / 1e6);
		if (event->hog.tid)
			printf(" behind %d (%s)", event->hog.tid, hog);
		putchar('\n');
		break;
	case STALLD_EVENT_BOOSTED:
		printf("boosted %d (%s) cpu %u by %s\n", event->task.tid, name, event->task.cpu,
		       policy_name(event->policy));
		break;
	case STALLD_EVENT_RESTORED:
		printf("restored %d (%s) to %s %d after %.0f ms\n", event->task.tid, name, policy_name(event->policy),
		       event->priority, length);
		break;
	case STALLD_EVENT_ENDED:
		printf("ended %d (%s) after %.0f ms\n", event->task.tid, name, length);
		break;
	case STALLD_EVENT_FAILED:
		printf("failed %d (%s): %s\n", event->task.tid, name, stalld_strerror(event->error));
		break;
	case STALLD_EVENT_LATE:
		printf("late %.0f ms\n", length);
		break;
	default:
		/* A newer library may have further events. */
		break;
	}
	fflush(stdout);
}

static uint64_t milliseconds(const char *text)
{
	return strtoull(text, NULL, 10) * 1000000;
}

int main(int argc, char **argv)
{
	struct stalld_options options;
	struct stalld_event event;
	struct sigaction action;
	struct pollfd poller;
	int option, result;

	memset(&options, 0, sizeof(options));
	options.sz = sizeof(options);
	options.log = log_line;
	while ((option = getopt(argc, argv, "bd:fgi:j:t:u")) != -1) {
		switch (option) {
		case 'b':
			options.flags |= STALLD_RESCUE;
			break;
		case 'd':
			options.duration_ns = milliseconds(optarg);
			break;
		case 'f':
			options.flags |= STALLD_FORCE_FIFO;
			break;
		case 'g':
			options.flags |= STALLD_GUARDIAN;
			break;
		case 'i':
			options.ignore_processes = optarg;
			break;
		case 'j':
			options.journal = optarg;
			break;
		case 't':
			options.threshold_ns = milliseconds(optarg);
			break;
		case 'u':
			options.flags |= STALLD_UNTHROTTLE;
			break;
		default:
			return 2;
		}
	}
	result = stalld_open(&handle, &options);
	if (result < 0) {
		fprintf(stderr, "watch: %s\n", stalld_last_error());
		return 1;
	}
	memset(&action, 0, sizeof(action));
	action.sa_handler = stop;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);

	poller.fd = stalld_fd(handle);
	poller.events = POLLIN;
	do {
		if (poll(&poller, 1, -1) < 0 && errno != EINTR)
			break;
		result = stalld_dispatch(handle);
		if (result < 0 && result != -ECANCELED)
			fprintf(stderr, "watch: %s\n", stalld_last_error());
		while (stalld_next_event(handle, &event, sizeof(event)) == 1)
			print(&event);
	} while (result != -ECANCELED && result != -STALLD_EPANIC);
	stalld_close(handle);
	return result == -ECANCELED ? 0 : 1;
}
