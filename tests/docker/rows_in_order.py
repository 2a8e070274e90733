#!/usr/bin/env python3
"""Sorts the rows of each table of a dump, on stdin: a server that loads a dump fills pages as it likes, so that the next
dump has the same rows in another order. Everything else stays where it is."""
import sys

out = sys.stdout.buffer
rows = None
for line in sys.stdin.buffer:
    if rows is None:
        out.write(line)
        if line.startswith(b"COPY ") and line.endswith(b"FROM stdin;\n"):
            rows = []
    elif line == b"\\.\n":
        out.writelines(sorted(rows))
        out.write(line)
        rows = None
    else:
        rows.append(line)
if rows is not None:
    sys.exit("the dump ends within a table")
