#!/usr/bin/env bash
# Stopped in the middle: 130 within five seconds, nothing committed, nothing lost, a checkpoint of trees left; kill -9 costs no more.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

repo=$T/repo
mkdir "$T/data" "$T/small"
for i in 1 2 3 4 5 6; do head -c 50000000 /dev/urandom >"$T/data/$i"; done
printf 'kept\n' >"$T/small/file"
age
step 0 "a repository with a snapshot" ice backup --init -r "$repo" "$T/small"
# A stream without an end, so that no machine is too fast for the signal.
endless="bash -c 'echo \$\$ >$T/child; while :; do head -c 4000000 /dev/urandom; sleep 0.05; done'"
mute="bash -c 'echo \$\$ >$T/child; exec >&-; sleep 9999'"
# Standard input on which nothing comes.
mkfifo "$T/silence"
exec 9<>"$T/silence"

milliseconds() {
    printf '%s' "$(($(date +%s%N) / 1000000))"
}

# stopped SIGNAL DELAY CODE TITLE ARG…: icecore ARG…, sent SIGNAL after DELAY, ends with CODE within five seconds. If it
# ended well before the signal reached it, that is a FAIL, or status 1 where early_is_fine is set.
stopped() {
    local signal=$1 delay=$2 want=$3 title=$4 pid got=0 began took
    shift 4
    rm -f "$T/child"
    # Without job control a background child would be born deaf to SIGINT.
    set -m
    "$ICECORE" "$@" >"$T/out" 2>"$T/err" <"${input-/dev/null}" &
    pid=$!
    set +m
    sleep "$delay"
    if ! kill -0 "$pid" 2>/dev/null; then
        if [[ -n ${early_is_fine-} ]]; then
            wait "$pid" 2>/dev/null || fail "$title: exit code $?"
            return 1
        fi
        fail "$title: it ended before the signal: $(tail -n 2 "$T/err" | tr '\n' '|')"
        wait "$pid" 2>/dev/null || true
        return 0
    fi
    began=$(milliseconds)
    # It may end at this very moment.
    kill -"$signal" "$pid" 2>/dev/null || true
    # A process that does not stop is ended after 20 s.
    (sleep 20 && kill -KILL "$pid") 2>/dev/null &
    local watch=$!
    wait "$pid" 2>/dev/null || got=$?
    took=$(($(milliseconds) - began))
    kill "$watch" 2>/dev/null || true
    wait "$watch" 2>/dev/null || true
    if [[ -n ${early_is_fine-} && $got -eq 0 ]]; then
        return 1
    fi
    if grep -q 'panicked at' "$T/err"; then
        fail "$title: panicked: $(grep -m1 'panicked at' "$T/err")"
    elif [[ $got -ne $want ]]; then
        fail "$title: exit code $got, not $want"
    elif ((took > 5000)); then
        fail "$title: took $took ms to stop"
    else
        pass "$title: exit code $got after $took ms"
    fi
}

child_gone() {
    local child i
    child=$(cat "$T/child" 2>/dev/null || true)
    if [[ -z $child ]]; then
        fail "$1: the command never began"
        return
    fi
    for ((i = 0; i < 30; i++)); do
        kill -0 "$child" 2>/dev/null || break
        sleep 0.1
    done
    if kill -0 "$child" 2>/dev/null; then
        fail "$1: the command still runs"
        kill -KILL -- "-$child" 2>/dev/null || kill -KILL "$child"
    else
        pass "$1: the command is gone too"
    fi
}

# How many snapshots there are, checkpoints aside.
committed() {
    ice -r "$repo" --json snapshots | grep -vc '"checkpoint"'
}

for signal in INT TERM; do
    stopped $signal 1.5 130 "SIG$signal in a stream" -r "$repo" backup --command "endless=$endless"
    child_gone "SIG$signal in a stream"
    equal "$(committed)" 1 "SIG$signal in a stream: nothing is committed"
    equal "$(objects "$repo" leases)" 0 "SIG$signal in a stream: no lease is left"
    stopped $signal 1.5 130 "SIG$signal while a command that closed its output goes on" -r "$repo" backup --command "mute=$mute"
    child_gone "SIG$signal while a command that closed its output goes on"
    input=$T/silence stopped $signal 1.5 130 "SIG$signal while nothing comes on standard input" -r "$repo" backup --stdin in
    # The highest level makes any machine slow enough.
    stopped $signal 1 130 "SIG$signal in a tree" -r "$repo" backup --level 19 "$T/data"
    equal "$(committed)" 1 "SIG$signal in a tree: nothing is committed"
    equal "$(objects "$repo" leases)" 0 "SIG$signal in a tree: no lease is left"
    step 0 "SIG$signal: structure is right" ice -r "$repo" verify
done

for signal in HUP QUIT; do
    stopped $signal 1.5 130 "SIG$signal in a stream" -r "$repo" backup --command "endless=$endless"
    child_gone "SIG$signal in a stream"
    equal "$(committed)" 1 "SIG$signal in a stream: nothing is committed"
    equal "$(objects "$repo" leases)" 0 "SIG$signal in a stream: no lease is left"
done

# A session that is lost, in the middle of a backup that has stopped a service. What starts it again waits for $T/go.
cat >"$T/icecore.toml" <<TOML
repository = "$repo"
[[source]]
name = "endless"
kind = "command"
command = """$endless"""
before = "bash -c 'echo stop >>$T/log'"
after = "bash -c 'echo starts >>$T/log; until [ -e $T/go ]; do sleep 0.05; done; echo started >>$T/log'"
[hooks]
after = "bash -c 'echo after \$ICECORE_EXIT_CODE >>$T/log'"
on_failure = "bash -c 'echo failed \$ICECORE_EXIT_CODE >>$T/log'"
TOML

# until_logged WORD: the log has it, within a minute.
until_logged() {
    local i
    for ((i = 0; i < 600; i++)); do
        ! grep -q "$1" "$T/log" 2>/dev/null || return 0
        sleep 0.1
    done
    fail "nothing told of '$1': $(tr '\n' '|' <"$T/log")"
}

# until_begun PID: the command of this icecore is at work.
until_begun() {
    while [[ ! -s $T/child ]] && kill -0 "$1" 2>/dev/null; do sleep 0.05; done
}

# service SIGNAL AGAIN GO TITLE WANTED: a backup is sent SIGNAL, and AGAIN once its `after` is at work; GO lets that go on.
service() {
    local pid got=0
    rm -f "$T/child" "$T/log" "$T/go"
    set -m
    "$ICECORE" --config "$T/icecore.toml" backup >"$T/out" 2>"$T/err" </dev/null &
    pid=$!
    set +m
    (sleep 120 && kill -KILL "$pid") 2>/dev/null &
    local watch=$!
    until_logged stop
    until_begun "$pid"
    kill -"$1" "$pid" 2>/dev/null || true
    until_logged starts
    kill -"$2" "$pid" 2>/dev/null || true
    sleep 0.5
    [[ -z $3 ]] || touch "$T/go"
    wait "$pid" 2>/dev/null || got=$?
    kill "$watch" 2>/dev/null || true
    wait "$watch" 2>/dev/null || true
    equal "$got $(tr '\n' '|' <"$T/log")" "$5" "$4"
}

service HUP HUP go "a session that is lost (SIGHUP, twice)" "130 stop|starts|started|after 130|failed 130|"
service HUP TERM go "… and SIGTERM behind it" "130 stop|starts|started|after 130|failed 130|"
service TERM TERM '' "the second SIGTERM does not wait for the service" "130 stop|starts|"
equal "$(committed)" 1 "nothing is committed"

# An engine that hangs.
mkdir "$T/hangs"
printf '#!/bin/sh\necho $$ >%s\nexec sleep 1000\n' "$T/child" >"$T/hangs/docker"
chmod 755 "$T/hangs/docker"
printf 'repository = "%s"\n[[source]]\nname = "db"\nkind = "postgresql"\ncontainer = "x"\n' "$repo" >"$T/hangs/icecore.toml"
rm -f "$T/child"
set -m
PATH=$T/hangs:$PATH "$ICECORE" --config "$T/hangs/icecore.toml" node backup >"$T/out" 2>"$T/err" </dev/null &
held=$!
set +m
until_begun "$held"
kill -TERM "$held" 2>/dev/null || true
(sleep 30 && kill -KILL "$held") 2>/dev/null &
watch=$!
got=0
wait "$held" 2>/dev/null || got=$?
kill "$watch" 2>/dev/null || true
wait "$watch" 2>/dev/null || true
equal "$got" 130 "SIGTERM while docker hangs"
child_gone "SIGTERM while docker hangs"

# Under nohup the session may go.
rm -f "$T/child"
set -m
(trap '' HUP && exec "$ICECORE" -r "$repo" backup --command "endless=$endless") >"$T/out" 2>"$T/err" </dev/null &
deaf=$!
set +m
until_begun "$deaf"
kill -HUP "$deaf" 2>/dev/null || true
sleep 1
if kill -0 "$deaf" 2>/dev/null && ! grep -q stopping "$T/err"; then
    pass "a backup under nohup outlives its session"
else
    fail "a backup under nohup outlives its session: $(tail -n 2 "$T/err" | tr '\n' '|')"
fi
kill -TERM "$deaf" 2>/dev/null || true
got=0
wait "$deaf" 2>/dev/null || got=$?
equal "$got" 130 "… and SIGTERM stops it"

for delay in 0.2 0.5 1.5; do
    stopped KILL $delay 137 "SIGKILL after $delay s" -r "$repo" backup --command "endless=$endless"
    child=$(cat "$T/child" 2>/dev/null || true)
    [[ -z $child ]] || kill -KILL -- "-$child" 2>/dev/null || true
    step 0 "SIGKILL after $delay s: structure is right" ice -r "$repo" verify
done
equal "$(committed)" 1 "nothing of what was killed is committed"
step 0 "latest is what was committed" ice -r "$repo" cat latest:small/file
same_file "$T/small/file" "$T/out" "it is equal"

step 0 "the next backup" ice -r "$repo" backup "$T/data" "$T/small"
step 0 "restore" ice -r "$repo" restore latest "$T/back"
same_tree "$T/data" "$T/back/data" "rsync finds no difference"

# A restore that was stopped leaves no torn file under its own name, and is finished by the next one.
hit=
for delay in 1 0.5 0.3 0.25 0.2 0.15 0.1 0.07 0.05 0.03; do
    rm -rf "$T/back"
    if early_is_fine=1 stopped INT $delay 130 "SIGINT after $delay s of a restore" -r "$repo" restore latest:data "$T/back"; then
        hit=1
        break
    fi
done
[[ -n $hit ]] || fail "each restore ended before its signal"
for file in "$T/back"/[1-6]; do
    if [[ -e $file ]] && ! cmp -s "$file" "$T/data/${file##*/}"; then fail "$file is torn"; fi
done
step 0 "the restore goes on" ice -r "$repo" restore latest:data "$T/back"
same_tree "$T/data" "$T/back" "rsync finds no difference"
verified "$repo"
finish
