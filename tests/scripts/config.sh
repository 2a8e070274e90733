#!/usr/bin/env bash
# icecore.toml without a node: sources in their order, hooks, retention, limits, and how mistakes are told.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

mkdir -p "$T/etc" "$T/data/sub" "$T/keys"
printf one >"$T/data/a"
printf two >"$T/data/sub/b"
printf key >"$T/keys/node.key"
chmod 600 "$T/keys/node.key"
printf 'a passphrase\n' >"$T/etc/passphrase"
unset ICECORE_PASSPHRASE
log=$T/log
cat >"$T/etc/icecore.toml" <<TOML
repository = "../repo"
passphrase_file = "passphrase"
host = "a-node"

[backup]
tags = ["by-config"]

[[source]]
name = "early"
kind = "tree"
path = "$T/keys"
unchanged = "alarm"

[[source]]
name = "dump"
kind = "command"
command = "bash -c 'cat $T/dump; exit \$(cat $T/code)'"
ends_with = "-- whole"
smallest = "50%"
before = "bash -c 'echo stop >>$log'"
after = "bash -c 'echo start >>$log'"

[[source]]
name = "data"
kind = "tree"
path = "$T/data"
not_older_than = "dump"
only = ["a", "sub"]

[retention]
keep_last = 2

[verify]
read_data = true

[hooks]
before = "bash -c 'echo before \${ICECORE_PASSPHRASE-none} >>$log'"
after = ["bash -c 'echo after \$ICECORE_EXIT_CODE \${ICECORE_SNAPSHOT:0:8} >>$log'"]
on_failure = "bash -c 'echo failed \$ICECORE_EXIT_CODE \$ICECORE_ERROR >>$log'"
TOML
export ICECORE_CONFIG=$T/etc/icecore.toml
dump() {
    { head -c "${1:-1000}" /dev/zero; printf '\n-- whole\n'; } >"$T/dump"
    echo "${2:-0}" >"$T/code"
}
told() { tr '\n' '|' <"$log"; rm -f "$log"; }

dump
step 0 "a backup of what the file says" ice --json backup --init
id=$(field snapshot)
equal "$(told)" "before none|stop|start|after 0 ${id:0:8}|" "hooks run around it, and see no passphrase of ours"
step 0 "snapshots, by the same file" ice --json snapshots
equal "$(field host) $(field suspect 2>/dev/null || echo good)" "a-node good" "the snapshot is of the host that it names"
says '"early".*"dump".*"data"' "sources are in their order"
says 'by-config' "with its tags"
step 0 "cat, by the same file" ice cat latest:dump
same_file "$T/dump" "$T/out" "it is the dump"
step 0 "verify reads all data, by the file" ice --json verify
field_is packs_read -ge 1 "it read packs"

step 0 "one source alone" ice --json backup --source data
rm -f "$log"
step 2 "an unknown source" ice backup --source nothing
one_error_line "it says so"
rm -f "$log"
step 2 "what is left out needs a path" ice backup --exclude x
one_error_line "it says so"
rm -f "$log"
step 0 "a path on the command line takes the place of the file's sources" ice --json backup "$T/data"
rm -f "$log"

rm -f "$log"
dump 1000 7
step 1 "a dump that fails" ice backup
one_error_line "it says so"
said=$(told)
if [[ $said == "before none|stop|start|after 1|failed 1 "*"exit code 7|" ]]; then
    pass "what was stopped runs again, by the source's and the backup's after; then on_failure is told of it"
else
    fail "after and on_failure: $said"
fi
dump 300
step 3 "a dump much smaller than the last" ice backup
says 'much less' "is told"
said=$(told)
if [[ $said == *"after 3 "*"failed 3 warning: dump: "*"much less"*"|" ]]; then pass "by both hooks"; else fail "hooks: $said"; fi
step 3 "and again" ice backup
step 0 "until it is accepted" ice backup --accept dump
printf KEY >"$T/keys/node.key"
step 5 "a changed key" ice backup
says 'alarm: early:node.key: changed' "is told"
step 0 "snapshots" ice snapshots
says 'incomplete, suspect' "says which are not to be trusted"
step 5 "and again" ice --json backup
step 0 "the policy" ice --json forget --dry-run
# Of the group with all three sources: good ones are the first and the accepted one; no suspect one takes their place.
equal "$(grep -c '"complete".*"action":"keep"' "$T/out")" 4 "keep_last keeps complete ones"
step 0 "forget, by the file's policy" ice forget --force
step 0 "what the first one was is still there" ice --json snapshots
says "${id:0:8}" "it is"

# The file's rules are those of its own host.
sed 's/^host = .*/host = "b-node"/' "$T/etc/icecore.toml" >"$T/etc/other.toml"
of_b() { ice --json snapshots --host b-node | wc -l; }
for i in 1 2 3; do
    step 0 "another host of the repository ($i)" ice --config "$T/etc/other.toml" backup
done
rm -f "$log"
step 0 "forget, by the first host's file" ice forget
equal "$(of_b)" 3 "leaves the other's alone"
step 0 "unless it is told not to" ice forget --any-host
equal "$(of_b)" 2 "as the rules say"
step 2 "one host and any" ice forget --any-host --host b-node

printf 'another\n' >"$T/pass"
step 0 "a second repository" ice init -r "$T/copy" --passphrase-file "$T/pass"
step 3 "copy latest: of the file's host, and suspect" ice copy latest --to "$T/copy" --to-passphrase-file "$T/pass"

mv "$T/keys" "$T/away"
step 5 "the directory of keys is gone" ice backup
step 3 "its last good content is in the snapshot" ice cat latest:early/node.key
says 'warning: snapshot .* is suspect: early: .*the last good one is' "and the doubt is told"
step 5 "an alarm stands" ice status
says 'ALARM' "and is shown"
step 3 "latest is suspect" ice cat latest:early/node.key
equal "$(cat "$T/out")" key "the first key"
mv "$T/away" "$T/keys"

sed -i 's/^before = "bash -c .echo before.*/before = "false"/' "$T/etc/icecore.toml"
rm -f "$log"
snapshots=$(objects "$T/repo" snapshots)
step 1 "a hook that fails before" ice backup
one_error_line "it says so"
equal "$(objects "$T/repo" snapshots)" "$snapshots" "nothing is committed"
says 'hook .before' "it is told which"
said=$(told)
if [[ $said == "after 1|failed 1 "*"hook 'before' failed"* ]]; then
    pass "what it may have stopped is started again"
else
    fail "after and on_failure: $said"
fi
step 5 "a dry run sees the key" ice backup --dry-run
if [[ -e $log ]]; then fail "it ran $(told)"; else pass "and runs no hook, and nothing around a source"; fi

# Mistakes, wherever they are needed; and none where they are not.
for mistake in 's/^keep_last = 2/keep_lats = 2/' 's/^kind = "command"/kind = "comand"/' 's/^ends_with/end_with/' 's/^\[retention\]/[retention/'; do
    sed "$mistake" "$T/etc/icecore.toml" >"$T/etc/bad.toml"
    line=$({ diff "$T/etc/icecore.toml" "$T/etc/bad.toml" || true; } | sed -n "s/^\([0-9]*\)c.*/\1/p")
    step 2 "a mistake ($mistake)" ice --config "$T/etc/bad.toml" snapshots
    one_error_line "it says so"
    says "bad.toml, line $line" "with its line"
done
step 0 "completions need no file" ice --config "$T/etc/bad.toml" completions bash
step 2 "a file that was named and is not there" ice --config "$T/nowhere.toml" snapshots
one_error_line "it says so"
export ICECORE_PASSPHRASE_FILE=$T/etc/passphrase
verified "$T/repo"
finish
