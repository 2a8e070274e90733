#!/usr/bin/env bash
# A real tree: backed up, backed up again unchanged, changed a little, restored, compared by rsync.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

mkdir "$T/tree"
for directory in /usr/include /usr/share/perl5 /usr/share/doc; do
    [[ -d $directory ]] && cp -a "$directory" "$T/tree/"
done
[[ $(find "$T/tree" -type f | wc -l) -ge 500 ]] || die "no tree of some size on this machine"
# Times that nothing sets by chance, of a link and of directories, with nanoseconds.
ln -s nowhere "$T/tree/link"
mkdir -p "$T/tree/empty/inner"
touch -h -d '2001-02-03 04:05:06.123456789' "$T/tree/link"
touch -d '1969-12-31 23:59:58.5' "$T/tree/empty/inner"
touch -d '2038-01-20 00:00:00.000000001' "$T/tree/empty"
touch -d '2010-10-10 10:10:10.101010101' "$T/tree"
age
files=$(find "$T/tree" -type f | wc -l)
repo=$T/repo

step 0 "first backup" ice --json backup --init -r "$repo" "$T/tree"
field_is files_new -eq "$files" "all files are new"
field_is chunks_new -gt 0 "chunks are stored"
packs=$(objects "$repo" packs)
bytes=$(repo_bytes "$repo")

step 0 "unchanged backup" ice --json -r "$repo" backup "$T/tree"
field_is files_unchanged -eq "$files" "all files are unchanged"
field_is files_new -eq 0 "no file is new"
field_is chunks_new -eq 0 "no data chunk is stored"
field_is metadata_chunks_new -eq 0 "no metadata chunk is stored"
equal "$(objects "$repo" packs)" "$packs" "no pack is stored"
equal "$(objects "$repo" snapshots)" 2 "two snapshots"
equal "$(objects "$repo" leases)" 0 "no lease is left"
grown=$(($(repo_bytes "$repo") - bytes))
if ((grown < 8192)); then pass "it added $grown bytes"; else fail "an unchanged backup added $grown bytes"; fi

step 0 "restore of all" ice -r "$repo" restore latest "$T/back"
same_tree "$T/tree" "$T/back/tree" "rsync finds no difference"
equal "$(cd "$T/tree" && find . -printf '%p %y %T@\n' | sort | sha256sum)" \
    "$(cd "$T/back/tree" && find . -printf '%p %y %T@\n' | sort | sha256sum)" "times agree to the nanosecond, links and directories too"

printf 'something new\n' >"$T/tree/new file"
rm "$T/tree/link"
printf 'a line more\n' >>"$(find "$T/tree/include" -maxdepth 1 -type f | sort | head -n 1)"
mv "$T/tree/empty" "$T/tree/moved"
packs=$(objects "$repo" packs)
step 0 "backup of four changes" ice --json -r "$repo" backup "$T/tree"
field_is files_new -eq 1 "one file is new"
field_is files_changed -eq 1 "one file changed"
equal "$(($(objects "$repo" packs) - packs))" 1 "one pack is stored"
step 0 "diff" ice -r "$repo" diff "$(ice -r "$repo" --json snapshots | python3 -c '
import json, sys
ids = [v for line in sys.stdin if line.strip() for k, v in json.loads(line).items() if k in ("id", "snapshot")]
print(ids[-2] if len(ids) >= 3 else "too-few-snapshots")')" latest
says 'new file' "diff names the new file"
says 'link' "diff names the removed link"

step 0 "restore over what was there" ice -r "$repo" restore latest:tree "$T/back/tree" --delete
same_tree "$T/tree" "$T/back/tree" "rsync finds no difference after the second restore"
step 0 "restore of one directory" ice -r "$repo" restore latest:tree/include "$T/include"
same_tree "$T/tree/include" "$T/include" "rsync finds no difference in it"
step 0 "restore of one file" ice -r "$repo" restore "latest:tree/new file" "$T/one"
same_file "$T/tree/new file" "$T/one" "it is equal"
step 0 "cat of a file" ice -r "$repo" cat "latest:tree/new file"
same_file "$T/tree/new file" "$T/out" "it is equal"
step 0 "cat of a directory" ice -r "$repo" cat latest:tree/include
mkdir "$T/untar"
tar -xf "$T/out" -C "$T/untar" || fail "what cat gave is not a tar file"
equal "$(find "$T/untar" -type f | wc -l)" "$(find "$T/tree/include" -type f | wc -l)" "the tar file has all files"
step 0 "ls" ice -r "$repo" ls latest:tree/moved
says 'inner' "ls names what is in the directory"
step 0 "find" ice -r "$repo" find 'new*file'
says 'new file' "find finds it"
step 0 "snapshots" ice -r "$repo" snapshots
step 0 "stats" ice -r "$repo" stats
# shellcheck disable=SC2016  # the inner shell's own
step 0 "a pipe that closes early is no error" bash -c '"$0" -r "$1" ls latest:tree 2>"$2" | head -n 1 >/dev/null; ! grep . "$2"' "$ICECORE" "$repo" "$T/pipe.err"
verified "$repo"

# Who gives no passphrase gets a key file and is told where.
as_user mkdir -p "$T/user/data"
as_user cp /etc/hostname "$T/user/data/file" || die "no small file to copy"
step 0 "backup --init without a passphrase" as_user env -u ICECORE_PASSPHRASE "$ICECORE" backup --init -r "$T/user/repo" "$T/user/data"
key=$(find "$T/user/config" -path '*/icecore/keys/*' -type f 2>/dev/null || true)
equal "$(stat -c %a "$key" 2>/dev/null || true)" 600 "a key file of mode 600 is there"
says "${key:-no key file}" "it says where"
step 0 "it is found by later commands" as_user env -u ICECORE_PASSPHRASE "$ICECORE" -r "$T/user/repo" verify --read-data
[[ -z $key ]] || mv "$key" "$key.away"
step 11 "without it nothing opens" as_user env -u ICECORE_PASSPHRASE "$ICECORE" -r "$T/user/repo" snapshots

finish
