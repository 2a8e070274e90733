#!/usr/bin/env bash
# The repository's disk is full, at moments of all kinds: commands say so, nothing committed is lost, and with room again all
# works. On a small tmpfs and a small ext4; then the cache directory's disk. SEED repeats a run, ROUNDS is how many (12).
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

SEED=${SEED:-$RANDOM}
printf 'seed %s\n' "$SEED"
RANDOM=$SEED
rounds=${ROUNDS:-12}
have_root "small file systems" || finish

mkdir "$T/tree" "$T/mnt"
n=0
# Changes the tree: some 300 KiB anew, that no compression makes smaller.
edit() {
    local i
    for i in 1 2 3; do
        n=$((n + 1))
        head -c $((RANDOM * 6 + 1)) /dev/urandom >"$T/tree/file.$((n % 40))"
    done
    printf '%s\n' "$n" >"$T/tree/counter"
}

available() {
    df --output=avail -k "$1" | tail -n 1 | tr -d ' '
}

# fill DIRECTORY FREE: leaves FREE KiB.
fill() {
    local size=$(($(available "$1") - $2))
    ((size > 0)) || return 0
    head -c $((size * 1024)) /dev/zero >>"$1/filler" 2>/dev/null || true
    if (($2 == 0)); then
        # The last bytes too, whatever is kept for the file system itself.
        dd if=/dev/zero of="$1/filler" bs=1k oflag=append conv=notrunc 2>/dev/null || true
    fi
    sync -f "$1"
}

# tried TITLE CMD…: on a disk without room it does its work, or ends with 1 and says why.
tried() {
    local title=$1 got=0
    shift
    "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
    if grep -q 'panicked at' "$T/err"; then
        fail "$title: panicked: $(grep -m1 -A1 'panicked at' "$T/err" | tr '\n' ' ')"
    elif [[ $got -eq 0 ]]; then
        pass "$title: it was enough"
    elif [[ $got -ne 1 ]]; then
        fail "$title: exit code $got: $(tail -n 3 "$T/err" | tr '\n' '|')"
    elif grep -qiE 'no space|no room|full' "$T/err"; then
        pass "$title: $(grep -m1 '^error: ' "$T/err" | cut -c1-140)"
    else
        fail "$title: exit code 1, and no word of space: $(tail -n 3 "$T/err" | tr '\n' '|')"
    fi
    return 0
}

# The repository is whole, LAST is what it was, and life goes on.
goes_on() {
    local title=$1
    step 0 "$title: verify" ice -r "$repo" verify --read-data
    rm -rf "$T/back"
    step 0 "$title: restore" ice -r "$repo" restore "$last:tree" "$T/back"
    same_tree "$T/last" "$T/back" "$title: it is equal"
    backed_up "$title: the next backup"
}

backed_up() {
    step 0 "$1" ice --json -r "$repo" backup "$T/tree"
    last=$(field snapshot)
    rm -rf "$T/last"
    cp -a "$T/tree" "$T/last"
}

# find_last TITLE [OPTION]: LAST is the last snapshot that is listed.
find_last() {
    step 0 "$1: the newest" ice --json -r "$repo" snapshots ${2-}
    last=$(python3 -c 'import json, sys; print([json.loads(l)["id"] for l in open(sys.argv[1]) if json.loads(l)["type"] == "snapshot"][-1])' "$T/out")
}

# Commands that free room, or write little, use the reserve.
by_the_reserve() {
    local kind=$1 forgotten
    step 0 "$kind: prune with room, again" ice -r "$repo" prune
    fill "$T/mnt" 0
    step 0 "$kind: forget on a full disk" ice -r "$repo" forget --keep-last 1 --force
    step 0 "$kind: forget by name on a full disk" ice -r "$repo" forget latest
    find_last "$kind" --forgotten
    forgotten=$last
    step 0 "$kind: undelete on a full disk" ice -r "$repo" undelete "$forgotten"
    step 0 "$kind: tag on a full disk" ice -r "$repo" tag latest --add full
    step 0 "$kind: repair index on a full disk" ice -r "$repo" repair index
    step 0 "$kind: repair packs on a full disk" ice -r "$repo" repair packs
    step 0 "$kind: repair snapshots on a full disk" ice -r "$repo" repair snapshots
    rm "$repo/config.2"
    step 0 "$kind: repair config on a full disk" ice -r "$repo" repair config
    step 0 "$kind: key add on a full disk" ice -r "$repo" key add --new-key-file "$T/key.$kind"
    step 0 "$kind: the keys" ice --json -r "$repo" key list
    step 0 "$kind: key remove on a full disk" ice -r "$repo" key remove \
        "$(python3 -c 'import json, sys; print([k["slot"] for k in map(json.loads, open(sys.argv[1])) if k.get("current") is False][0])' "$T/out")"
    if [[ -e $repo/.reserve ]]; then pass "$kind: there is a reserve again"; else fail "$kind: the reserve is gone"; fi
    rm -f "$T/mnt/filler"
    find_last "$kind"
    goes_on "$kind, after all that on a full disk"
}

on_disk() {
    local kind=$1 round free command filler before after
    repo=$T/mnt/repo
    edit
    edit
    step 0 "$kind: init" ice -r "$repo" init
    backed_up "$kind: first backup"
    for ((round = 1; round <= rounds; round++)); do
        edit
        case $((RANDOM % 6)) in
        0 | 1) command=(backup "$T/tree") ;;
        2) command=(prune --now) ;;
        3) command=(repair index) ;;
        4) command=(tag latest --add "round-$round") ;;
        5) command=(forget --keep-last 2 --force) ;;
        esac
        if ((RANDOM % 2)); then
            free=$((RANDOM % 4 ? RANDOM % 900 : 0))
            fill "$T/mnt" "$free"
            tried "$kind $round: ${command[0]} with $free KiB left" ice -r "$repo" "${command[@]}"
        else
            # The disk becomes full while it runs.
            fill "$T/mnt" $((RANDOM % 600 + 200))
            (while :; do head -c 32768 /dev/zero >>"$T/mnt/filler" || sleep 0.01; done) 2>/dev/null &
            filler=$!
            tried "$kind $round: ${command[0]} while the disk fills" ice -r "$repo" "${command[@]}"
            kill "$filler" 2>/dev/null
            wait "$filler" 2>/dev/null || true
        fi
        rm -f "$T/mnt/filler"
        if [[ ${command[0]} == tag || ${command[0]} == forget ]]; then
            # A tag makes a new snapshot object in the old one's place.
            find_last "$kind $round"
        elif [[ ${command[0]} == backup ]]; then
            # What it committed, if it did, is the tree as it is.
            backed_up "$kind $round: a backup with room"
        fi
        goes_on "$kind $round"
    done

    # What no snapshot needs any more gives room on a disk that has none.
    rm -rf "$T/tree" && mkdir "$T/tree"
    edit
    edit
    backed_up "$kind: another tree"
    # What a prune took of the room held back, the next one that finds room puts back.
    step 0 "$kind: prune with room" ice -r "$repo" prune
    step 0 "$kind: forget" ice -r "$repo" forget --keep-last 1 --force
    before=$(repo_bytes "$repo/packs")
    fill "$T/mnt" 0
    step 0 "$kind: prune --now on a full disk" ice -r "$repo" prune --now
    after=$(repo_bytes "$repo/packs")
    if ((after * 2 < before)); then
        pass "$kind: the packs took $before bytes and take $after"
    else
        fail "$kind: the packs took $before bytes and take $after"
    fi
    if (($(available "$T/mnt") > 0)); then pass "$kind: there is room again"; else fail "$kind: still full"; fi
    rm -f "$T/mnt/filler"
    goes_on "$kind, after the prune"
    by_the_reserve "$kind"
}

mount -t tmpfs -o size=40m tmpfs "$T/mnt" || die "mount -t tmpfs"
cleanups+=("umount '$T/mnt' 2>/dev/null")
on_disk tmpfs
umount "$T/mnt"

truncate -s 48M "$T/image"
mkfs.ext4 -q -m 0 "$T/image" || die "mkfs.ext4"
mount -o loop "$T/image" "$T/mnt" || die "mount -o loop"
on_disk ext4
umount "$T/mnt"

# The cache directory's disk is full: at worst the command says so. The repository does not need it.
repo=$T/repo
export ICECORE_CACHE_DIR=$T/mnt/cache
mount -t tmpfs -o size=2m tmpfs "$T/mnt" || die "mount -t tmpfs"
step 0 "cache: init" ice -r "$repo" init
backed_up "cache: first backup"
for free in 0 8 40 150 500; do
    edit
    fill "$T/mnt" "$free"
    tried "cache: backup with $free KiB left" ice -r "$repo" backup "$T/tree"
    tried "cache: restore with $free KiB left" ice -r "$repo" restore "$last:tree" "$T/back.cache"
    rm -rf "$T/back.cache" "$ICECORE_CACHE_DIR"
    fill "$T/mnt" "$free"
    tried "cache: a new one with $free KiB left" ice -r "$repo" verify
    rm -rf "$T/mnt/filler"
    goes_on "cache, $free KiB"
done
finish
