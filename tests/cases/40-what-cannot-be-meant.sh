#!/usr/bin/env bash
# Options that select no snapshot, values that are not what they look like, and failures under --json.
# Right: what can mean two things is refused; what selects nothing is named, with what there is; each failure with --json
# is an event, a usage error too; what a hint says can be typed.
. "$(dirname "$0")/lib.sh"

mkdir -p s/a && echo 1 >s/a/f && echo 1 >s/g
ice -q init || exit 2
ice -q backup s="$T/s" --host here --tag nightly || exit 2

# Filters with a name that no snapshot has.
for words in "snapshots" "status" "find g" "forget --keep-last 1 -n"; do
    for filter in "--host nosuch:here" "--source nosuch:s" "--tag nosuch:nightly"; do
        [ "$words" = status ] && [ "${filter#--tag}" != "$filter" ] && continue
        # shellcheck disable=SC2086 # several words
        ice $words ${filter%:*} >out 2>&1 || { cat out; wrong "$words ${filter%:*}: exit code $?"; }
        grep -q "warning: .*'nosuch'; there are: ${filter#*:}" out || { cat out; wrong "$words ${filter%:*} says nothing"; }
    done
done
ice snapshots --host here >out 2>&1 && ! grep -q warning out || wrong "a host that is there is warned of"
export ICECORE_TO_PASSPHRASE=x
ice -q init -r other || exit 2
ice copy --to other --host nosuch >out 2>&1
rc=$?
[ $rc = 3 ] && grep -q "there are: here" out || { cat out; wrong "a copy of nothing ends with $rc"; }
ice -q copy latest --to other --any-host || wrong "copy does not take the option that its error names"

# A bad address of the other repository is not blamed on --repo.
ice copy --to nosuch >out 2>&1
rc=$?
[ $rc = 10 ] && grep -q 'hint: .*--to' out && ! grep -q -- --repo out || { cat out; wrong "copy --to nosuch: exit code $rc"; }

# Values that can mean two things, or nothing.
for words in "restore latest:s/g - --any-host --delete" "tag latest --any-host --add x --remove x"; do
    # shellcheck disable=SC2086 # several words
    ice $words >out 2>&1
    rc=$?
    [ $rc = 2 ] || { cat out; wrong "$words: exit code $rc"; }
done
for words in "verify --sample 5" "verify --sample 0.05" "status --max-age 0s" "status --max-age -1h" "ls latest~1" "diff latest:s latest"; do
    # shellcheck disable=SC2086 # several words
    ice $words >out 2>&1
    rc=$?
    [ $rc = 2 ] || { cat out; wrong "$words: exit code $rc"; }
    grep -q "unexpected argument" out && { cat out; wrong "$words: the value is taken for an option"; }
    # shellcheck disable=SC2086
    ice $words --json >out 2>/dev/null
    [ "$(wc -l <out)" = 1 ] && grep -q '^{"type":"error","exit_code":2,"message":".*}$' out || { cat out; wrong "$words --json is no event"; }
done

# Patterns and lists as other programs write them.
ice backup s="$T/s" --exclude s/a -n >out 2>&1
grep -q "warning: .*write '/a'" out || { cat out; wrong "the source's name in a pattern is taken in silence"; }
ice restore latest:s new --any-host --exclude s/a >out 2>&1
rc=$?
[ $rc = 2 ] && [ ! -e new ] || { cat out; wrong "restore --exclude s/a: exit code $rc"; }
printf '%s\n' "$T/s/a/f" >list
ice backup s="$T/s" --files-from list >out 2>&1
rc=$?
[ $rc = 2 ] && grep -q "write 'a/f'" out || { cat out; wrong "an absolute list: exit code $rc"; }
printf '\xef\xbb\xbfa/f\r\n' >list
ice -q backup s="$T/s" --files-from list >out 2>&1 || { cat out; wrong "a list with a byte order mark"; }
echo a/f | ice -q backup s="$T/s" --files-from - >out 2>&1 || { cat out; wrong "--files-from - does not read standard input"; }
echo g | ice -q backup s="$T/s" --exclude-file - --host pipe >out 2>&1 || { cat out; wrong "--exclude-file - does not read standard input"; }
ice ls latest:s --host pipe >out 2>&1
grep -q s/g out && { cat out; wrong "the patterns of standard input leave out nothing"; }
cp -r "$T/s" "$T/second"
echo g | ice -q backup s="$T/s" second="$T/second" --exclude-file /dev/stdin --host pipes >out 2>&1 || { cat out; wrong "patterns from a pipe for two sources"; }
{ ice ls latest:s --host pipes && ice ls latest:second --host pipes; } >out 2>&1
grep -q /g out && { cat out; wrong "the patterns of a pipe hold for one of two sources"; }
echo x | ice backup s="$T/s" --files-from - --stdin in >out 2>&1
rc=$?
[ $rc = 2 ] || { cat out; wrong "standard input is taken twice: exit code $rc"; }
ice backup s="$T/s" --accept nosuch >out 2>&1
rc=$?
[ $rc = 2 ] && grep -q "'nosuch'" out || { cat out; wrong "--accept of no source: exit code $rc"; }
right "what cannot be meant is named, and so is what can"
