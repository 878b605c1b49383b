#!/usr/bin/env python3
"""Draws traces as a picture for a page that can't run Perfetto: draw-trace.py TRACE... > picture.svg

A TRACE is a file that `stalld --trace` or `stallstat trace` has written. Tracks that are active for
less than a thousandth of the time are left out, and so are those beyond the first dozen.
"""

import json
import sys
from html import escape

WIDTH, NAMES, LANE, GAP, MOST = 900, 190, 22, 6, 12
COLOURS = {"waits": "#d9a441", "scan": "#555555", "SCHED_DEADLINE": "#3f7fbf", "SCHED_FIFO": "#7f5fbf"}
OTHERS = ["#b5534c", "#7a9e7e", "#8d99ae", "#c08497", "#6b705c"]


def read(path):
    with open(path, encoding="utf-8") as file:
        text = file.read().rstrip()
    # A trace that was cut off lacks its end.
    return json.loads(text if text.endswith("]") else text.rstrip(",") + "]")


def boxes(events):
    """(track, name, begin, end) of all that takes time, in microseconds; and the names of tracks."""
    names, found, begun = {}, [], {}
    for event in events:
        track = event["pid"], event["tid"]
        if event["ph"] == "M":
            names.setdefault((event["name"], *track), event["args"]["name"])
        elif event["ph"] == "X":
            found.append((track, event["name"], event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] in "Bb":
            begun.setdefault((track, event.get("id")), []).append((event["name"], event["ts"]))
        elif event["ph"] in "Ee" and begun.get((track, event.get("id"))):
            name, at = begun[track, event.get("id")].pop()
            found.append((track, name, at, event["ts"]))
    return found, names


def label(track, names):
    pid, tid = track
    process = next((name for (kind, its, _), name in names.items() if kind == "process_name" and its == pid), "")
    thread = names.get(("thread_name", pid, tid), str(tid))
    return thread if process in thread else f"{process}: {thread}"


def main(paths):
    lanes = []
    for path in paths:
        found, names = boxes(read(path))
        for track in dict.fromkeys(box[0] for box in found):
            lanes.append((label(track, names), [box[1:] for box in found if box[0] == track]))
    start = min(box[1] for _, lane in lanes for box in lane)
    length = max(box[2] for _, lane in lanes for box in lane) - start
    busy = [lane for lane in lanes if sum(end - begin for _, begin, end in lane[1]) > length / 1000][:MOST]
    height = (LANE + GAP) * len(busy) + 40
    scale = (WIDTH - NAMES - 10) / length
    colours = dict(COLOURS)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="12">')
    print(f'<rect width="{WIDTH}" height="{height}" fill="white"/>')
    for index, (name, lane) in enumerate(busy):
        y = GAP + index * (LANE + GAP)
        print(f'<text x="4" y="{y + 15}">{escape(name[:28])}</text>')
        for what, begin, end in lane:
            colour = colours.setdefault(what, OTHERS[len(colours) % len(OTHERS)])
            x, width = NAMES + (begin - start) * scale, max((end - begin) * scale, 0.6)
            print(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE}" fill="{colour}"><title>{escape(what)}</title></rect>')
            if width > 7 * len(what):
                print(f'<text x="{x + 4:.1f}" y="{y + 15}" fill="white">{escape(what)}</text>')
    seconds = length / 1e6
    for tick in range(int(seconds) + 1):
        x = NAMES + tick * 1e6 * scale
        print(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - 30}" stroke="#ccc" stroke-width="0.5"/>')
        print(f'<text x="{x - 6:.1f}" y="{height - 14}" fill="#666">{tick} s</text>')
    print("</svg>")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1:])
