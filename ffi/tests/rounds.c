/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Opens, uses and closes handles: rounds COUNT FLAGS BACKEND. Fails if anything stays behind. */
#define _GNU_SOURCE
#include "check.h"

#include <dirent.h>
#include <sys/wait.h>

static int entries(const char *path)
{
	DIR *dir = opendir(path);
	int count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static long resident_pages(void)
{
	FILE *statm = fopen("/proc/self/statm", "r");
	long all, resident;

	CHECK(statm && fscanf(statm, "%ld %ld", &all, &resident) == 2);
	fclose(statm);
	return resident;
}

int main(int argc, char **argv)
{
	struct stalld_options options;
	int count, round, descriptors = 0;
	long pages = 0;

	CHECK(argc == 4);
	count = atoi(argv[1]);
	memset(&options, 0, sizeof(options));
	options.sz = sizeof(options);
	options.flags = strtoull(argv[2], NULL, 0);
	options.backend = atoi(argv[3]);
	for (round = 0; round < count; round++) {
		struct stalld *handle;

		RETURNS(stalld_open(&handle, &options), 0);
		CHECK(stalld_dispatch(handle) >= 1);
		RETURNS(stalld_close(handle), 0);
		/* One-time allocations are done by now. */
		if (round == count / 10) {
			descriptors = entries("/proc/self/fd");
			pages = resident_pages();
		}
	}
	CHECK(entries("/proc/self/fd") == descriptors);
	CHECK(waitpid(-1, NULL, __WALL | WNOHANG) == -1 && errno == ECHILD);
	printf("ok, %ld pages more\n", resident_pages() - pages);
	/* Some memory checkers keep what was freed for a while. */
	CHECK(count < 1000 || resident_pages() < pages + 256);
	return 0;
}
