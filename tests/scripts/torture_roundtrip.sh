#!/usr/bin/env bash
# Every kind of entry: restored as root and found equal by two judges, restored as an ordinary user with a report.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

have_root "the torture tree" || finish
repo=$T/repo
bash "$TESTS/torture.sh" "$T/tree" >"$T/torture.log" 2>&1 || die "tests/torture.sh: $(tail -n 3 "$T/torture.log" | tr '\n' '|')"
while IFS= read -r line; do
    fail "the tree is not whole: $line"
done < <(grep 'left out' "$T/torture.log" || true)
age

step 0 "backup" ice --json backup --init -r "$repo" "$T/tree"
step 0 "unchanged backup" ice --json -r "$repo" backup "$T/tree"
field_is chunks_new -eq 0 "no data chunk is stored"
field_is metadata_chunks_new -eq 0 "no metadata chunk is stored"

step 0 "restore as root" ice -r "$repo" restore latest "$T/back"
python3 "$TESTS/treelist.py" "$T/tree" >"$T/list.tree" || die "tests/treelist.py fails on the tree"
python3 "$TESTS/treelist.py" "$T/back/tree" >"$T/list.back" || fail "tests/treelist.py fails on the restored tree"
[[ $(wc -l <"$T/list.tree") -gt 20 ]] || fail "tests/treelist.py lists too little"
if diff -u "$T/list.tree" "$T/list.back" >"$T/list.diff"; then
    pass "the listings agree ($(wc -l <"$T/list.tree") lines)"
else
    fail "the listings differ: $(grep -a '^[-+]' "$T/list.diff" | sed -n 3,8p | cut -c1-300 | tr '\n' '|')"
fi
same_tree "$T/tree" "$T/back/tree" "rsync finds no difference where it can go"
step 0 "restore again over the first changes nothing" ice -r "$repo" restore latest "$T/back"
python3 "$TESTS/treelist.py" "$T/back/tree" >"$T/list.again"
same_file "$T/list.back" "$T/list.again" "the listing is the same"
verified "$repo"

# An ordinary user may not set owners nor make devices: what is left out is said, the rest is there.
cp -a "$repo" "$T/user/repo"
chown -R 65534:65534 "$T/user/repo"
step 3 "restore as an ordinary user" as_user timeout 900 "$ICECORE" -r "$T/user/repo" restore latest "$T/user/back"
says 'owner|permitted|may not|privilege|root' "the report says what may not be set"
says 'device' "the report names devices"
files=$(find "$T/tree" -type f | wc -l)
equal "$(find "$T/user/back/tree" -type f 2>/dev/null | wc -l)" "$files" "all $files files are there"

# What could not be read stays reported until it is read.
as_user mkdir -p "$T/user/data/shut"
as_user sh -c "echo a >$T/user/data/a; echo b >$T/user/data/b; echo c >$T/user/data/shut/c"
chmod 000 "$T/user/data/b" "$T/user/data/shut"
age
for round in first second third; do
    step 3 "$round backup with an unreadable file" as_user "$ICECORE" -r "$T/user/repo2" backup --init "$T/user/data"
    says 'data/b|[^a-z]b[^a-z]' "it is named"
    says 'shut' "the unreadable directory is named"
done
chmod 644 "$T/user/data/b"
step 3 "the directory alone is still unreadable" as_user "$ICECORE" -r "$T/user/repo2" backup "$T/user/data"
chmod 755 "$T/user/data/shut"
step 0 "all can be read" as_user "$ICECORE" -r "$T/user/repo2" backup "$T/user/data"
step 0 "restore" as_user "$ICECORE" -r "$T/user/repo2" restore latest:data "$T/user/back2"
same_tree "$T/user/data" "$T/user/back2" "rsync finds no difference"
step 0 "verify --read-data" as_user "$ICECORE" -r "$T/user/repo2" verify --read-data

finish
