/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* Macros that the C tests of libstalld share. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <stalld.h>

/* Ends the program unless the condition holds. Prints it, and the library's last error. */
#define CHECK(condition)                                                                                         \
	do {                                                                                                     \
		if (!(condition)) {                                                                              \
			fprintf(stderr, "%s:%d: not so: %s (last error: %s)\n", __FILE__, __LINE__, #condition,  \
				stalld_last_error());                                                            \
			exit(1);                                                                                 \
		}                                                                                                \
	} while (0)

/* The same for a call that has to return a certain number. Prints the number that it returned. */
#define RETURNS(call, expected)                                                                                  \
	do {                                                                                                     \
		int returned = (call);                                                                           \
		if (returned != (expected)) {                                                                    \
			fprintf(stderr, "%s:%d: %s is %d (%s), not %s (last error: %s)\n", __FILE__, __LINE__,   \
				#call, returned, stalld_strerror(returned), #expected, stalld_last_error());     \
			exit(1);                                                                                 \
		}                                                                                                \
	} while (0)

#endif
