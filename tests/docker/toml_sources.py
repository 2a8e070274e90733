#!/usr/bin/env python3
"""Lists the sources of an icecore.toml, one a line: name, kind, then KEY=VALUE of what else is said."""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    config = tomllib.load(file)
for source in config["source"]:
    name, kind = source.pop("name"), source.pop("kind")
    print(name, kind, *(f"{key}={value}" for key, value in source.items()))
