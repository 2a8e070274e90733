#!/usr/bin/env python3
"""Makes many small files named by the SHA-256 of their content, as content-addressed stores keep them.

    make_blocks.py DIR [--count 1000000] [--first 0] [--size 400] [--remove]

Block number n is always the same bytes, so `--first 1000000 --count 5000` adds 5,000 new ones to a million, and the same
with --remove takes them away again. The 1,024 directories are the first 10 bits of the name.
"""

import argparse
import hashlib
import os


def block(number: int, size: int) -> bytes:
    """Bytes that no compressor shortens, different for each number."""
    return hashlib.shake_128(b"block %d" % number).digest(size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--remove", action="store_true")
    args = parser.parse_args()

    directories = []
    for i in range(1024):
        path = os.path.join(args.dir, f"{i:03x}")
        os.makedirs(path, exist_ok=True)
        directories.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
    for number in range(args.first, args.first + args.count):
        content = block(number, args.size)
        name = hashlib.sha256(content).hexdigest()
        directory = directories[int(name[:3], 16) >> 2]
        if args.remove:
            os.unlink(name, dir_fd=directory)
            continue
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=directory)
        os.write(file, content)
        os.close(file)


if __name__ == "__main__":
    main()
