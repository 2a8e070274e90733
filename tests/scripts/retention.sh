#!/usr/bin/env bash
# Forget by policy and by name, bring back, tag and protect, status for a monitor, copy to a repository of another key.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

repo=$T/repo copy=$T/copy
export TZ=UTC
mkdir -p "$T/data/sub"
printf 'one\n' >"$T/data/one"
head -c 3000000 /dev/urandom >"$T/data/sub/large"
step 10 "status where there is no repository" ice -r "$repo" status
step 0 "a first snapshot" ice backup --init -r "$repo" --json "$T/data"
first=$(field snapshot)
cp -a "$T/data" "$T/then"
for i in 1 2 3 4 5; do
    printf '%s\n' "$i" >"$T/data/number"
    step 0 "snapshot $i" ice -r "$repo" backup --json "$T/data"
done
last=$(field snapshot)

# Policy.
step 2 "forget without any rule is bad usage" ice -r "$repo" forget
one_error_line "and says so"
step 2 "rules of no slot are no rules" ice -r "$repo" forget --keep-last 0
step 0 "a dry run" ice -r "$repo" forget --keep-last 4 --dry-run
says "keep +${last:0:8}.*last 1" "why the newest is kept"
says "drop +${first:0:8}.*no rule keeps it" "why the oldest is dropped"
equal "$(objects "$repo" snapshots)" 6 "a dry run forgets nothing"
step 0 "three of six" ice -r "$repo" forget --keep-last 3 --json
field_is dropped -eq 3 "three are forgotten"
equal "$(objects "$repo" snapshots) $(objects "$repo" forgotten)" "3 3" "and lie in forgotten"

# What would lose most of its time is left as it is, all else is done: a second host's snapshots, ten minutes old, and
# the first one's, made on days before.
two=$T/two
printf 'host = "other"\n' >"$T/other.toml"
gcc -shared -fPIC -o "$T/shim.so" "$TESTS/cases/engine/shim.c" || fail "no C compiler"
for i in 12 10 8 6 4 2; do
    step 0 "$i days ago" env SHIFT=$((-i * 86400)) LD_PRELOAD="$T/shim.so" "$ICECORE" -r "$two" backup --init "$T/data"
done
# Whoever touches the objects moves nothing.
find "$two/snapshots" -type f -exec touch {} +
step 0 "another host's" ice -r "$two" --config "$T/other.toml" backup "$T/data"
step 0 "and one more" ice -r "$two" --config "$T/other.toml" backup "$T/data"
step 1 "a dry run over both" ice -r "$two" forget --keep-last 1 --dry-run
says '1 group was left alone: .*5 of 6 would be forgotten' "says what it would refuse"
step 1 "most of the time is not forgotten" ice -r "$two" forget --keep-last 1 --prune --json
one_error_line "and that is said"
says '^hint: .*--force' "and how to"
field_is dropped -eq 1 "the other host's is forgotten"
field_is bytes_freed -ge 0 "and pruned"
equal "$(objects "$two" snapshots) $(objects "$two" forgotten)" "7 1" "nothing else is"
step 0 "forced" ice -r "$two" forget --keep-last 1 --force
equal "$(objects "$two" snapshots)" 2 "one of each host stays"
verified "$two"

# The way back.
step 0 "what can be brought back" ice -r "$repo" snapshots --forgotten --json
equal "$(wc -l <"$T/out")" 3 "is listed"
step 0 "undelete" ice -r "$repo" undelete "${first:0:10}" --json
back=$(field snapshot)
step 1 "once is enough" ice -r "$repo" undelete "$first"
one_error_line "and says so"
step 0 "its original is told" ice -r "$repo" snapshots --json
says "\"original\":\"$first\"" "as the first one"
step 0 "latest is the newest still" ice -r "$repo" ls latest:data/number
step 0 "what came back is restored" ice -r "$repo" restore "$back:data" "$T/restored"
same_tree "$T/then" "$T/restored" "as it was"
verified "$repo"

# Tags and protection.
step 2 "tag without a change is bad usage" ice -r "$repo" tag "$back"
step 0 "tag and protect" ice -r "$repo" tag "$back" --add keep --protect --json
kept=$(field snapshot)
step 0 "so already" ice -r "$repo" tag "$kept" --protect --json
field_is changed -eq 0 "nothing changes"
step 1 "a protected one is not forgotten by name" ice -r "$repo" forget "$kept"
says '^hint: .*--unprotect' "and the hint says how to"
step 0 "nor by policy" ice -r "$repo" forget --keep-last 1 --force
equal "$(objects "$repo" snapshots)" 2 "the newest and the protected one stay"
step 0 "snapshots shows it" ice -r "$repo" snapshots --tag keep
says 'complete, protected' "as protected"
step 0 "let go of" ice -r "$repo" tag "$kept" --unprotect --set '' --json
step 0 "and forgotten" ice -r "$repo" forget "$(field snapshot)"
verified "$repo"

# With a prune: what was forgotten is there until its data is gone.
printf 'short-lived\n' >"$T/data/number"
head -c 2000000 /dev/urandom >"$T/data/random"
step 0 "a snapshot that is soon forgotten" ice -r "$repo" backup --json "$T/data"
gone=$(field snapshot)
rm "$T/data/random"
step 0 "one that stays" ice -r "$repo" backup "$T/data"
step 0 "forget and prune" ice -r "$repo" forget "$gone" --prune --json
field_is bytes_freed -eq 0 "a first prune frees nothing"
step 0 "it can be brought back" ice -r "$repo" undelete "$gone" --json
again=$(field snapshot)
step 0 "and is whole" ice -r "$repo" restore "$again:data/random" "$T/random"
verified "$repo"
step 0 "forgotten once more" ice -r "$repo" forget "$again"
step 0 "and pruned at once" ice -r "$repo" prune --now --json
field_is bytes_freed -gt 2000000 "what only it held is freed"
step 1 "it cannot be brought back" ice -r "$repo" undelete "$again"
one_error_line "and that is said"
verified "$repo"

# Monitoring.
step 0 "status" ice -r "$repo" status --max-age 1h --json
field_is snapshots -ge 1 "the source has a snapshot"
sleep 2
step 3 "too old is exit code 3" ice -r "$repo" status --max-age 1s
says 'source data on host .*old' "with a line that names the source"
step 3 "a host without a backup too" ice -r "$repo" status --max-age 1h --host nobody
umask 077
step 0 "metrics" ice -r "$repo" status --prometheus "$T/icecore.prom"
umask 022
equal "$(stat -c %a "$T/icecore.prom")" 644 "can be read by others"
cp "$T/icecore.prom" "$T/out"
says '^icecore_last_success_timestamp_seconds\{host="[^"]+",source="data",path="[^"]*data"\} [0-9]{10}' "and tell the last success"

# Another repository.
printf 'another\n' >"$T/pass"
step 0 "a second repository" ice init -r "$copy" --passphrase-file "$T/pass"
step 11 "its passphrase is not the first one's" ice -r "$repo" copy --to "$copy"
one_error_line "and says so"
for i in 6 7; do
    printf '%s\n' "$i" >"$T/data/number"
    step 0 "snapshot $i" ice -r "$repo" backup "$T/data"
done
step 0 "a dry run" ice -r "$repo" copy --to "$copy" --to-passphrase-file "$T/pass" --dry-run --json
field_is copied -eq 4 "would copy four"
equal "$(objects "$copy" snapshots) $(objects "$copy" packs)" "0 0" "and copies none"
step 0 "copy" ice -r "$repo" copy --to "$copy" --to-passphrase-file "$T/pass"
equal "$(objects "$copy" snapshots)" 4 "four snapshots are there"
before=$(repo_bytes "$copy")
export ICECORE_TO_PASSPHRASE=another
step 0 "copy again" ice -r "$repo" copy --to "$copy" --json
field_is present -eq 4 "all are there"
equal "$(repo_bytes "$copy")" "$before" "nothing is stored"
printf 'eight\n' >"$T/data/number"
step 0 "one more" ice -r "$repo" backup "$T/data"
step 0 "is copied" ice -r "$repo" copy --to "$copy" --json
field_is bytes_stored -lt 20000 "and costs what is new"
export ICECORE_PASSPHRASE=another
step 0 "restored from the copy" ice -r "$copy" restore latest:data "$T/from-copy"
same_tree "$T/data" "$T/from-copy" "it is as it was"
verified "$copy"
export ICECORE_PASSPHRASE='correct horse'
verified "$repo"
finish
