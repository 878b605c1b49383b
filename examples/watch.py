#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
"""Prints starving tasks, by libstalld through ctypes: watch.py [THRESHOLD-IN-MS [SECONDS]]

It loads the installed library. With LD_LIBRARY_PATH=target/lib it loads one that was just built.
"""

import ctypes
import select
import sys
import time
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p


class Options(Structure):
    """The first fields of struct stalld_options. The library uses defaults for the others."""

    _fields_ = [("sz", c_size_t), ("flags", c_uint64), ("threshold_ns", c_uint64), ("granularity_ns", c_uint64)]


class Task(Structure):
    _fields_ = [
        ("tid", c_int32),
        ("tgid", c_int32),
        ("cpu", c_uint32),
        ("policy", c_int32),
        ("prio", c_int32),
        ("rt_priority", c_int32),
        ("start", c_uint64),
        ("comm", c_char * 16),
    ]


class Event(Structure):
    _fields_ = [
        ("kind", c_uint32),
        ("error", c_int32),
        ("time_ns", c_uint64),
        ("wait_ns", c_uint64),
        ("length_ns", c_uint64),
        ("task", Task),
        ("hog", Task),
        ("hog_seen_ns", c_uint64),
        ("policy", c_int32),
        ("priority", c_int32),
        ("backend", c_int32),
        ("now_tid", c_int32),
        ("flags", c_uint32),
        ("lost", c_uint32),
    ]


STARVING, BACKEND = 1, 6

library = ctypes.CDLL("libstalld.so.0")
library.stalld_open.argtypes = [POINTER(c_void_p), POINTER(Options)]
library.stalld_next_event.argtypes = [c_void_p, POINTER(Event), c_size_t]
for function in (library.stalld_fd, library.stalld_dispatch, library.stalld_close):
    function.argtypes = [c_void_p]
for function in (library.stalld_last_error, library.stalld_backend_name, library.stalld_version):
    function.restype = c_char_p


def checked(result):
    if result < 0:
        sys.exit("watch.py: " + library.stalld_last_error().decode())
    return result


def name(task):
    return repr(task.comm.decode(errors="replace"))


def main():
    threshold = float(sys.argv[1]) if len(sys.argv) > 1 else 60000
    until = time.monotonic() + float(sys.argv[2]) if len(sys.argv) > 2 else float("inf")
    handle = c_void_p()
    options = Options(sz=ctypes.sizeof(Options), threshold_ns=int(threshold * 1e6))
    checked(library.stalld_open(byref(handle), byref(options)))
    print("libstalld", library.stalld_version().decode(), flush=True)
    descriptor = checked(library.stalld_fd(handle))
    event = Event()
    left = 3600.0
    while left > 0:
        select.select([descriptor], [], [], min(left, 3600))
        checked(library.stalld_dispatch(handle))
        while checked(library.stalld_next_event(handle, byref(event), ctypes.sizeof(event))):
            if event.kind == BACKEND:
                print("backend", library.stalld_backend_name(event.backend).decode(), flush=True)
            elif event.kind == STARVING:
                task, hog = event.task, event.hog
                behind = f" behind {hog.tid} ({name(hog)})" if hog.tid else ""
                wait = event.wait_ns / 1e9
                print(f"{task.tid} ({name(task)}) starves on CPU {task.cpu} for {wait:.3f} s{behind}", flush=True)
        left = until - time.monotonic()
    checked(library.stalld_close(handle))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
