#!/usr/bin/env bash
# Rules that leave out all of a source: a stray `*` in the exclude file, `--exclude '*'`, `--exclude-larger-than 1` (meant: 1G). The source
# had files in the last snapshot; now an empty snapshot is committed, complete, exit code 0, no word; `latest` is empty, `status` calls it
# the last good one, and `--keep-last 1` forgets the good one. A directory that became empty is refused, and a list (`--files-from`) of
# which nothing is there, too.
# Right: refused as these are, unless `--allow-empty`.
. "$(dirname "$0")/lib.sh"
mkdir -p "$T/s/a"; for n in 1 2 3; do echo "$n" >"$T/s/a/$n"; done; echo x >"$T/s/x"
setup ice -q -r "$R" init
setup ice -q -r "$R" backup "$T/s"
printf '*.tmp\n*\n' >"$T/rules"
bad=
for rule in "--exclude *" "--exclude **" "--exclude /**" "--exclude-file $T/rules" "--exclude-larger-than 1" "--exclude /a --exclude x"; do
    set -f; ice -r "$R" backup "$T/s" $rule >"$T/out" 2>&1; rc=$?; set +f
    files=$(ice -r "$R" ls -R latest:s | grep -c '/[0-9x]$')
    [ "$rc" != 0 ] || [ "$files" != 0 ] || { echo "$rule: exit code 0, the snapshot holds no file"; bad=x; }
    setup ice -q -r "$R" backup "$T/s"
done
[ -z "$bad" ] || wrong "empty snapshots were committed as good ones"
right "refused"
