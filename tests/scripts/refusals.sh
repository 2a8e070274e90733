#!/usr/bin/env bash
# What cannot be done: the right exit code, one clear line, and a repository as good as before.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

repo=$T/repo
mkdir "$T/data"
head -c 300000 /dev/urandom >"$T/data/file"
printf 'hello\n' >"$T/data/small"
step 0 "a repository to refuse with" ice backup --init -r "$repo" "$T/data"

# refused CODE TITLE CMD…: refused in one line, and once more at a second try; no snapshot more.
refused() {
    local before code=$1 title=$2
    shift 2
    before=$(objects "$repo" snapshots)
    for title in "$title" "$title, again"; do
        step "$code" "$title" "$@"
        one_error_line "$title"
        equal "$(objects "$repo" snapshots)" "$before" "$title: no snapshot"
    done
}

refused 11 "wrong passphrase" env ICECORE_PASSPHRASE=wrong "$ICECORE" -r "$repo" snapshots
refused 11 "wrong passphrase, backup" env ICECORE_PASSPHRASE=wrong "$ICECORE" -r "$repo" backup "$T/data"
refused 11 "empty passphrase" env ICECORE_PASSPHRASE= "$ICECORE" -r "$repo" snapshots
: >"$T/empty"
for action in add change "export $T/exported"; do
    # shellcheck disable=SC2086
    refused 11 "an empty new passphrase, key $action" ice -r "$repo" key $action --new-passphrase-file "$T/empty"
    says '--new-key-file' "key $action: the options of a new passphrase are named"
done
verified "$repo"

# What cannot be meant: names, sizes and paths.
for option in --host --tag; do
    for name in '' ' ' 'a ' $'a\tb' $'a\e[2J'; do
        step 2 "backup $option $(printf %q "$name")" ice -r "$repo" backup "$option" "$name" "$T/data"
        step 2 "snapshots $option $(printf %q "$name")" ice -r "$repo" snapshots "$option" "$name"
    done
done
step 2 "a tag with a comma" ice -r "$repo" backup --tag a,b "$T/data"
step 2 "a source's name of blanks" ice -r "$repo" backup " =$T/data"
step 2 "no memory" ice -r "$repo" backup --memory 1 "$T/data"
says 'at least 64MiB' "it says how much is needed"
step 2 "no time to verify in" ice -r "$repo" verify --max-time 0s
refused 2 "a named configuration that is not there" ice -r "$repo" --config "$T/none.toml" snapshots
refused 2 "the same in the environment" env ICECORE_CONFIG="$T/none.toml" ICECORE_REPO="$repo" "$ICECORE" backup "$T/data"
refused 2 "another user's home" ice -r '~nobody/repo' snapshots
refused 2 "a variable that no shell replaced" env ICECORE_REPO='$HOME/repo' "$ICECORE" backup --init "$T/data"
refused 2 "the same for the cache" env ICECORE_CACHE_DIR='~nobody/cache' "$ICECORE" -r "$repo" snapshots
refused 2 "the same for the state" env ICECORE_STATE_DIR='$HOME/state' "$ICECORE" -r "$repo" snapshots
mkdir "$T/elsewhere"
ln -s "$repo" "$HOME/repo"
step 0 "a tilde that no shell replaced" env -C "$T/elsewhere" ICECORE_CACHE_DIR='~/cache' ICECORE_STATE_DIR='~/state' "$ICECORE" --repo='~/repo' snapshots
equal "$(find "$T/elsewhere" | wc -l)" 1 "nothing is made in a directory named ~"
equal "$(ls -d "$HOME/cache" "$HOME/state" | wc -l)" 2 "the home directory is meant"
rm "$HOME/repo"

refused 10 "missing repository" ice -r "$T/none" snapshots
refused 10 "missing repository, backup without --init" ice -r "$T/none" backup "$T/data"
mkdir "$T/directory"
refused 10 "a directory that is no repository" ice -r "$T/directory" verify
equal "$(find "$T/directory" | wc -l)" 1 "nothing was written there"
equal "$(find "$T/none" 2>/dev/null || true)" "" "nor was the missing one made"
step 1 "init of what is there already" ice -r "$repo" init
one_error_line "init of what is there already"
verified "$repo"

# edited EXPRESSION: both copies of config changed; what the edit is, is checked.
edited() {
    cp -a "$repo/config" "$T/config" && cp -a "$repo/config.2" "$T/config.2"
    python3 - "$1" "$repo/config" "$repo/config.2" <<'PY' || die "config could not be edited: $1"
import json, os, sys
kind, *paths = sys.argv[1:]
for path in paths:
    value = json.load(open(path))
    hits = 0
    def walk(v, name=""):
        global hits
        if isinstance(v, dict):
            for key, inner in v.items():
                if kind == key == "format" and isinstance(inner, int):
                    v[key] = inner + 1000
                    hits += 1
                else:
                    walk(inner, f"{name}.{key}")
        elif isinstance(v, list) and kind in name.rsplit(".", 2)[-1] and "feature" in name:
            v.append("from-the-future")
            hits += 1
    walk(value)
    if not hits:
        sys.exit(f"nothing to edit for {kind!r} in {sorted(value)}")
    os.chmod(path, 0o600)
    with open(path, "w") as out:
        json.dump(value, out, separators=(",", ":"))
        out.write("\n")
PY
}
unedited() {
    cp -af "$T/config" "$repo/config" && cp -af "$T/config.2" "$repo/config.2"
}
for kind in format read; do
    edited "$kind"
    refused 12 "a newer format ($kind)" ice -r "$repo" snapshots
    refused 12 "a newer format ($kind), backup" ice -r "$repo" backup "$T/data"
    refused 12 "a newer format ($kind), before the passphrase" env ICECORE_PASSPHRASE=wrong "$ICECORE" -r "$repo" snapshots
    unedited
done
verified "$repo"

refused 1 "missing source path" ice -r "$repo" backup "$T/nowhere"
refused 1 "one of two paths is missing" ice -r "$repo" backup "$T/data" "$T/nowhere"
says nowhere "it is named"
step 2 "two sources of one name" ice -r "$repo" backup "$T/data" "data=$T/directory"
step 2 "an option that is not there" ice -r "$repo" backup --no-such-option
step 2 "no command" ice -r "$repo"
refused 1 "a snapshot that is not there" ice -r "$repo" restore 0123456789abcdef "$T/x"
refused 1 "a path that is not there" ice -r "$repo" cat latest:data/nowhere
mkfifo "$T/fifo"
refused 2 "a FIFO is not replaced by a file" ice -r "$repo" restore latest:data/small "$T/fifo"
equal "$(stat -c %F "$T/fifo")" fifo "and is there"
refused 2 "nor /dev/stdout" ice -r "$repo" restore latest:data/small /dev/stdout
equal "$(stat -c %F /dev/stdout)" 'symbolic link' "and is there"
mkdir "$T/mnt"
mv "$T/data" "$T/data.away" && mkdir "$T/data"
refused 1 "a source that is empty now" ice -r "$repo" backup "$T/data"
step 0 "unless it may be" ice -r "$repo" backup --allow-empty "$T/data"
rmdir "$T/data" && mv "$T/data.away" "$T/data"
step 0 "the next backup" ice -r "$repo" backup "$T/data"
refused 1 "a rule that leaves nothing" ice -r "$repo" backup --exclude '*' "$T/data"
printf 'other/file\r\nother/small\r\n' >"$T/list"
refused 1 "a list of another directory" ice -r "$repo" backup --files-from "$T/list" "listed=$T/data"
says 'listed' "it is told"
printf 'file\r\nsmall\r\nnowhere\r\n' >"$T/list"
step 3 "a list that names what is not there" ice -r "$repo" backup --files-from "$T/list" "listed=$T/data"
says 'listed:nowhere' "it is named"
step 0 "the rest is kept" ice -r "$repo" ls latest:listed/small
step 0 "all of it once more" ice -r "$repo" backup "$T/data"
verified "$repo"

# Permission denied.
cp -a "$T/data" "$T/user/data"
[[ $EUID -ne 0 ]] || chown -R 65534:65534 "$T/user"
chmod 000 "$T/user/data/small"
step 3 "a file that may not be read" as_user "$ICECORE" -r "$T/user/repo" backup --init "$T/user/data"
says 'small' "it is named"
says 'denied' "the cause is told"
step 0 "the rest was kept" as_user "$ICECORE" -r "$T/user/repo" ls latest:data
says 'file' "the other file is listed"
chmod 000 "$T/user/repo/packs"
step 1 "a repository that may not be read" as_user "$ICECORE" -r "$T/user/repo" cat latest:data/file
one_error_line "a repository that may not be read"
chmod 755 "$T/user/repo/packs"
step 0 "verify --read-data" as_user "$ICECORE" -r "$T/user/repo" verify --read-data

# Read-only repository: writing is refused, reading works.
if have_root "a read-only mount"; then
    mount --bind "$repo" "$T/mnt" || die "mount --bind"
    cleanups+=("umount '$T/mnt' 2>/dev/null")
    mount -o remount,bind,ro "$T/mnt"
    refused 1 "a read-only repository" ice -r "$T/mnt" backup "$T/data"
    says 'read-only' "the cause is told"
    step 0 "reading it works" ice -r "$T/mnt" snapshots
    step 0 "restore from it" ice -r "$T/mnt" restore latest:data "$T/ro.back"
    same_tree "$T/data" "$T/ro.back" "is equal"
    step 0 "verify of it" ice -r "$T/mnt" verify --read-data
    umount "$T/mnt"
    verified "$repo"
fi

# Full disk.
if have_root "a full disk"; then
    mount -t tmpfs -o size=6m tmpfs "$T/mnt" || die "mount -t tmpfs"
    cleanups+=("umount '$T/mnt' 2>/dev/null")
    step 0 "a repository on a small disk" ice backup --init -r "$T/mnt/repo" "$T/data"
    mkdir "$T/big" && head -c 40000000 /dev/urandom >"$T/big/file"
    before=$(objects "$T/mnt/repo" snapshots)
    step 1 "a full disk" ice -r "$T/mnt/repo" backup "$T/big"
    one_error_line "a full disk"
    says 'space|full' "the cause is told"
    equal "$(objects "$T/mnt/repo" snapshots)" "$before" "no snapshot"
    step 0 "what was there can be restored" ice -r "$T/mnt/repo" restore latest:data "$T/full.back"
    same_tree "$T/data" "$T/full.back" "and is equal"
    verified "$T/mnt/repo"
    mount -o remount,size=200m "$T/mnt"
    step 0 "with room it goes on" ice -r "$T/mnt/repo" backup "$T/big"
    step 0 "restore of it" ice -r "$T/mnt/repo" restore latest:big "$T/big.back"
    same_tree "$T/big" "$T/big.back" "is equal"
    verified "$T/mnt/repo"
    # A target that is full: reported, and the repository is none the worse.
    mkdir "$T/target"
    mount -t tmpfs -o size=4m tmpfs "$T/target"
    cleanups+=("umount '$T/target' 2>/dev/null")
    got=0
    ice -r "$T/mnt/repo" restore latest:big "$T/target/x" >"$T/out" 2>"$T/err" || got=$?
    case $got in
    1 | 3) pass "a full target is told (exit code $got)" ;;
    *) fail "a full target: exit code $got" ;;
    esac
    says 'space|full' "the cause is told"
    verified "$T/mnt/repo"
fi

verified "$repo"
finish
