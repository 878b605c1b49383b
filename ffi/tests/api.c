/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Uses libstalld in valid and invalid ways. Prints "ok" if all results are as documented. */
#define _GNU_SOURCE
#include "check.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef OWN_LIBBPF
/* The program has a libbpf of its own beside that of the library. */
extern const char *libbpf_version_string(void);
#endif

static struct stalld_options defaults(void)
{
	struct stalld_options options;

	memset(&options, 0, sizeof(options));
	options.sz = sizeof(options);
	return options;
}

static struct stalld *opened(const struct stalld_options *options)
{
	struct stalld *handle = NULL;

	RETURNS(stalld_open(&handle, options), 0);
	CHECK(handle);
	return handle;
}

static void refused(const struct stalld_options *options, int expected, const char *text)
{
	struct stalld *handle = (void *)&handle;

	RETURNS(stalld_open(&handle, options), expected);
	CHECK(!handle);
	CHECK(strstr(stalld_last_error(), text));
}

static void null_is_no_handle_and_no_place(void)
{
	struct stalld_event event;
	struct stalld_stats stats;
	struct stalld_waiter waiter;
	struct stalld *handle;

	RETURNS(stalld_open(NULL, NULL), -EFAULT);
	CHECK(strstr(stalld_last_error(), "handle is NULL"));
	RETURNS(stalld_close(NULL), 0);
	RETURNS(stalld_fd(NULL), -EFAULT);
	RETURNS(stalld_dispatch(NULL), -EFAULT);
	RETURNS(stalld_next_event(NULL, &event, sizeof(event)), -EFAULT);
	RETURNS(stalld_stop(NULL), -EFAULT);
	RETURNS(stalld_boost(NULL, 1), -EFAULT);
	RETURNS(stalld_restore(NULL, 1), -EFAULT);
	RETURNS(stalld_snapshot(NULL, &waiter, 1, sizeof(waiter)), -EFAULT);
	RETURNS(stalld_get_stats(NULL, &stats, sizeof(stats)), -EFAULT);
	RETURNS(stalld_backend(NULL), -EFAULT);

	handle = opened(NULL);
	RETURNS(stalld_next_event(handle, NULL, sizeof(event)), -EFAULT);
	RETURNS(stalld_get_stats(handle, NULL, sizeof(stats)), -EFAULT);
	RETURNS(stalld_snapshot(handle, NULL, 1, sizeof(waiter)), -EFAULT);
	CHECK(stalld_snapshot(handle, NULL, 0, sizeof(waiter)) >= 0);
	RETURNS(stalld_close(handle), 0);
}

/* Options of a program that was built with a newer header. */
struct next_options {
	struct stalld_options now;
	uint64_t next;
};

static void options_come_in_any_version(void)
{
	struct stalld_options options = defaults();
	struct next_options next;
	size_t sz;

	/* An older program gets the defaults for options that it does not know. */
	for (sz = sizeof(size_t); sz <= sizeof(options); sz += sizeof(size_t)) {
		options.sz = sz;
		RETURNS(stalld_close(opened(&options)), 0);
	}
	options.sz = offsetof(struct stalld_options, threshold_ns);
	options.threshold_ns = 1; /* beyond the end of the struct */
	RETURNS(stalld_close(opened(&options)), 0);

	memset(&next, 0, sizeof(next));
	next.now.sz = sizeof(next);
	RETURNS(stalld_close(opened(&next.now)), 0);
	next.next = 1;
	refused(&next.now, -E2BIG, "asks for what this version of the library does not know");

	options = defaults();
	options.sz = 0;
	refused(&options, -EINVAL, "sz is 0");
	options.sz = 13;
	refused(&options, -EINVAL, "sz is 13");
	options.sz = SIZE_MAX;
	refused(&options, -EINVAL, "sz is");
	options.sz = SIZE_MAX - 7;
	refused(&options, -E2BIG, "sz is");
}

static void options_out_of_range_are_refused(void)
{
	struct stalld_options options = defaults();

	options.flags = UINT64_C(1) << 63;
	refused(&options, -EINVAL, "0x8000000000000000 is no flag");
	options = defaults();
	options.threshold_ns = 9999999;
	refused(&options, -EINVAL, "threshold_ns: 9999999 is out of range");
	options = defaults();
	options.granularity_ns = UINT64_MAX;
	refused(&options, -EINVAL, "granularity_ns");
	options = defaults();
	options.runtime_ns = 1;
	refused(&options, -EINVAL, "runtime_ns");
	options = defaults();
	options.backend = INT32_MIN;
	refused(&options, -EINVAL, "backend");
	options = defaults();
	options.cpus = "0-";
	refused(&options, -EINVAL, "cpus: a CPU number is missing");
	options = defaults();
	options.ignore_threads = "(";
	refused(&options, -EINVAL, "ignore_threads: cannot compile");
	options = defaults();
	options.events = UINT32_MAX;
	refused(&options, -EINVAL, "events");
}

static void places_come_in_any_version(void)
{
	struct stalld *handle = opened(NULL);
	struct {
		struct stalld_event now;
		uint64_t next[4];
	} event;
	struct stalld_stats stats;
	struct stalld_waiter waiter;

	memset(&event, 0xff, sizeof(event));
	RETURNS(stalld_next_event(handle, &event.now, sizeof(event)), 1);
	CHECK(event.now.kind == STALLD_EVENT_BACKEND && event.now.backend == stalld_backend(handle));
	CHECK(event.next[0] == 0 && event.next[3] == 0);
	RETURNS(stalld_next_event(handle, &event.now, sizeof(event)), 0);
	RETURNS(stalld_next_event(handle, &event.now, sizeof(event.now) - 1), -EINVAL);
	RETURNS(stalld_next_event(handle, &event.now, 0), -EINVAL);
	RETURNS(stalld_next_event(handle, &event.now, SIZE_MAX), -E2BIG);

	RETURNS(stalld_get_stats(handle, &stats, sizeof(stats)), 0);
	CHECK(stats.scans == 0 && stats.lost_events == 0);
	RETURNS(stalld_get_stats(handle, &stats, 8), -EINVAL);
	RETURNS(stalld_get_stats(handle, &stats, 1 << 20), -E2BIG);
	RETURNS(stalld_snapshot(handle, &waiter, 1, 1), -EINVAL);
	RETURNS(stalld_snapshot(handle, &waiter, SIZE_MAX / sizeof(waiter) + 1, sizeof(waiter)), -E2BIG);
	RETURNS(stalld_close(handle), 0);
}

static void the_descriptor_is_ready_when_a_scan_is_due(void)
{
	struct stalld_options options = defaults();
	struct stalld *handle;
	struct stalld_stats stats;
	struct pollfd poller;
	int scans;

	options.threshold_ns = UINT64_C(3600000000000);
	options.granularity_ns = 10000000;
	handle = opened(&options);
	poller.fd = stalld_fd(handle);
	poller.events = POLLIN;
	CHECK(poller.fd >= 0);
	for (scans = 1; scans <= 3; scans++) {
		RETURNS(poll(&poller, 1, 60000), 1);
		CHECK(stalld_dispatch(handle) >= 0);
		/* The second call does nothing, because nothing is due. */
		CHECK(stalld_dispatch(handle) >= 0);
		RETURNS(stalld_get_stats(handle, &stats, sizeof(stats)), 0);
		CHECK((int)stats.scans >= scans);
	}
	RETURNS(stalld_close(handle), 0);
}

static void two_handles_do_not_know_of_each_other(void)
{
	struct stalld *first = opened(NULL), *second = opened(NULL);
	struct stalld_event event;

	CHECK(first != second && stalld_fd(first) != stalld_fd(second));
	CHECK(stalld_dispatch(first) >= 1);
	RETURNS(stalld_next_event(first, &event, sizeof(event)), 1);
	RETURNS(stalld_stop(first), 0);
	RETURNS(stalld_dispatch(first), -ECANCELED);
	RETURNS(stalld_close(first), 0);
	CHECK(stalld_dispatch(second) >= 1);
	RETURNS(stalld_next_event(second, &event, sizeof(event)), 1);
	RETURNS(stalld_close(second), 0);
}

static void a_child_can_not_use_its_parents_handle(void)
{
	struct stalld *handle = opened(NULL);
	struct stalld_event event;
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (child == 0) {
		RETURNS(stalld_fd(handle), -ECHILD);
		RETURNS(stalld_dispatch(handle), -ECHILD);
		RETURNS(stalld_next_event(handle, &event, sizeof(event)), -ECHILD);
		RETURNS(stalld_boost(handle, getpid()), -ECHILD);
		RETURNS(stalld_restore(handle, getpid()), -ECHILD);
		RETURNS(stalld_snapshot(handle, NULL, 0, sizeof(struct stalld_waiter)), -ECHILD);
		RETURNS(stalld_stop(handle), -ECHILD);
		RETURNS(stalld_close(handle), -ECHILD);
		RETURNS(stalld_close(opened(NULL)), 0);
		_exit(0);
	}
	RETURNS(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	/* The parent's handle works as before. */
	CHECK(stalld_dispatch(handle) >= 1);
	RETURNS(stalld_next_event(handle, &event, sizeof(event)), 1);
	RETURNS(stalld_close(handle), 0);
}

static struct stalld *to_stop;
static volatile sig_atomic_t stopped = 1;

static void stop(int signal)
{
	(void)signal;
	stopped = stalld_stop(to_stop);
}

static void a_signal_handler_can_stop_it(void)
{
	struct itimerval soon = { { 0, 0 }, { 0, 20000 } };
	struct sigaction action, before;
	struct pollfd poller;
	int result;

	memset(&action, 0, sizeof(action));
	action.sa_handler = stop;
	CHECK(sigaction(SIGALRM, &action, &before) == 0);
	to_stop = opened(NULL);
	poller.fd = stalld_fd(to_stop);
	poller.events = POLLIN;
	CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
	do {
		if (poll(&poller, 1, 60000) < 0)
			CHECK(errno == EINTR);
		result = stalld_dispatch(to_stop);
	} while (result >= 0);
	CHECK(result == -ECANCELED && stopped == 0);
	RETURNS(stalld_close(to_stop), 0);
	CHECK(sigaction(SIGALRM, &before, NULL) == 0);
}

static void what_can_not_be_boosted_is_refused(void)
{
	struct stalld *handle = opened(NULL);
	pid_t gone = fork();

	CHECK(gone >= 0);
	if (gone == 0)
		_exit(0);
	RETURNS(waitpid(gone, NULL, 0), gone);
	RETURNS(stalld_boost(handle, gone), -ESRCH);
	RETURNS(stalld_boost(handle, 0), -EINVAL);
	RETURNS(stalld_boost(handle, INT32_MIN), -EINVAL);
	RETURNS(stalld_restore(handle, 0), -EINVAL);
	RETURNS(stalld_restore(handle, getpid()), -ENOENT);
	CHECK(strstr(stalld_last_error(), "is not boosted by this handle"));
	RETURNS(stalld_close(handle), 0);
}

/* Writes the settings that the program has made for itself, as the kernel shows them. */
static void own_state(char *text, size_t size)
{
	static const char *const shown[] = { "Umask:",	"Threads:", "SigBlk:",	"SigIgn:",
					     "SigCgt:", "CapEff:",  "Seccomp", "Cpus_allowed:", "Mems_allowed:" };
	FILE *file = fopen("/proc/self/status", "r");
	char line[1024], cwd[4096];
	size_t i, used;

	CHECK(file && getcwd(cwd, sizeof(cwd)));
	used = (size_t)snprintf(text, size, "%s %d\n", cwd, sched_getscheduler(0));
	while (fgets(line, sizeof(line), file))
		for (i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
			if (!strncmp(line, shown[i], strlen(shown[i])))
				used += (size_t)snprintf(text + used, size - used, "%s", line);
	fclose(file);
	file = fopen("/proc/sys/kernel/sched_rt_runtime_us", "r");
	CHECK(file && fgets(line, sizeof(line), file));
	fclose(file);
	snprintf(text + used, size - used, "%s", line);
}

static void the_process_stays_as_it_is(void)
{
	struct stalld_options options = defaults();
	struct stalld *handle;
	char before[8192], after[8192];

	options.flags = STALLD_RESCUE | STALLD_GUARDIAN;
	own_state(before, sizeof(before));
	handle = opened(&options);
	CHECK(stalld_dispatch(handle) >= 1);
	own_state(after, sizeof(after));
	if (strcmp(before, after)) {
		fprintf(stderr, "before:\n%s\nafter:\n%s", before, after);
		exit(1);
	}
	RETURNS(stalld_close(handle), 0);
	own_state(after, sizeof(after));
	CHECK(!strcmp(before, after));
}

static volatile sig_atomic_t over;

static void *spin(void *tid)
{
	*(volatile pid_t *)tid = (pid_t)syscall(SYS_gettid);
	while (!over)
		;
	return NULL;
}

/* Two threads that share a CPU: at any moment one of them waits for it. */
static void the_programs_own_threads_are_tasks_like_any(void)
{
	struct stalld *handle = opened(NULL);
	struct stalld_waiter waiters[256];
	volatile pid_t tids[2] = { 0, 0 };
	pthread_t threads[2];
	cpu_set_t before, last;
	int i, tries, found = 0, cpu = 0;

	CHECK(sched_getaffinity(0, sizeof(before), &before) == 0);
	for (i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &before))
			cpu = i;
	CPU_ZERO(&last);
	CPU_SET(cpu, &last);
	CHECK(sched_setaffinity(0, sizeof(last), &last) == 0);
	for (i = 0; i < 2; i++)
		CHECK(pthread_create(&threads[i], NULL, spin, (void *)&tids[i]) == 0);
	CHECK(sched_setaffinity(0, sizeof(before), &before) == 0);
	for (tries = 0; tries < 20000 && !found; tries++) {
		int count = stalld_snapshot(handle, waiters, 256, sizeof(waiters[0]));

		CHECK(count >= 0);
		for (i = 0; i < count && i < 256; i++)
			found |= waiters[i].task.tid == tids[0] || waiters[i].task.tid == tids[1];
	}
	over = 1;
	for (i = 0; i < 2; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	CHECK(found);
	RETURNS(stalld_close(handle), 0);
}

static void every_number_has_a_text(void)
{
	CHECK(!strcmp(stalld_strerror(-ESRCH), strerror(ESRCH)));
	CHECK(!strcmp(stalld_strerror(STALLD_EBACKEND), stalld_strerror(-STALLD_EBACKEND)));
	CHECK(strlen(stalld_strerror(INT_MIN)) > 0 && strlen(stalld_strerror(INT_MAX)) > 0);
	CHECK(!strcmp(stalld_backend_name(STALLD_BACKEND_TASK_ITER), "task_iter"));
	CHECK(!stalld_backend_name(-1) && !stalld_backend_name(INT_MAX));
	CHECK(stalld_version_number() ==
	      STALLD_VERSION_MAJOR * 65536 + STALLD_VERSION_MINOR * 256 + STALLD_VERSION_PATCH);
	CHECK(strchr(stalld_version(), '.'));
}

int main(void)
{
	null_is_no_handle_and_no_place();
	options_come_in_any_version();
	options_out_of_range_are_refused();
	places_come_in_any_version();
	the_descriptor_is_ready_when_a_scan_is_due();
	two_handles_do_not_know_of_each_other();
	a_child_can_not_use_its_parents_handle();
	a_signal_handler_can_stop_it();
	what_can_not_be_boosted_is_refused();
	the_process_stays_as_it_is();
	the_programs_own_threads_are_tasks_like_any();
	every_number_has_a_text();
#ifdef OWN_LIBBPF
	CHECK(libbpf_version_string()[0] == 'v');
#endif
	puts("ok");
	return 0;
}
