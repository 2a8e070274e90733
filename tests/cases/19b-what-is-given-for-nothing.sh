#!/usr/bin/env bash
# A pattern that leaves out nothing, because it was written by another program's rules: everything that it was meant to
# leave out (secrets, caches) ends up in the backup. So do lines that git passes over in silence.
# Right: as an option it is refused (exit code 2); a line of an exclude file, which git passes over, is named.
. "$(dirname "$0")/lib.sh"

mkdir -p s/cache && echo 1 >s/cache/big && echo 1 >s/f
ice -q init || exit 2
for pattern in "$T/s/cache" "$T/s" "!$T/s/cache" "~/cache" './cache' '../s/cache' 'ca[che' 'cache\' '' ' '; do
    ice -q backup s="$T/s" --exclude "$pattern" >out 2>&1
    rc=$?
    [ $rc = 2 ] || { cat out; wrong "--exclude '$pattern': exit code $rc"; }
    grep -q '^error: .*exclude option 1' out || { cat out; wrong "--exclude '$pattern': the error does not name it"; }
done
cd s && ice -q backup data=. --exclude "$T/s/cache" >"$T/out" 2>&1 && wrong "a source given as '.' took an absolute pattern"
cd ..
printf '%s\n' "$T/s/cache" >list
ice -q backup s="$T/s" --exclude-file list >out 2>&1 && wrong "a file with the source's own path was taken"
grep -q 'line 1 of' out || { cat out; wrong "the line is not named"; }
printf '%s\n' 'ok' 'ca[che' >list
ice backup s="$T/s" --exclude-file list >out 2>&1 || { cat out; wrong "a file that git takes was refused"; }
grep -q "line 2 of .*'ca\[che'" out || { cat out; wrong "a line that can match nothing is not named"; }
# A directory inside the source that spells the same path is meant as it stands.
mkdir -p "s$T/s/cache" && echo 1 >"s$T/s/cache/inner"
ice -q backup s="$T/s" --exclude "$T/s/cache" >out 2>&1 || { cat out; wrong "a pattern that matches was refused"; }
ice ls -R latest:s >ls
grep -q inner ls && wrong "the pattern that stands for a path inside the source did not match"
grep -q cache/big ls || wrong "too much was left out"
right "patterns that leave out nothing are refused, or named in files"
