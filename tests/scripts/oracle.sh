#!/usr/bin/env bash
# Two judges that share no code with icecore: tests/oracle/reader.py, written from docs/format.md, restores what icecore
# restores; and b3sum agrees that every object's name is the hash of its bytes.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

command -v b3sum >/dev/null || die "no b3sum (Debian package b3sum)"
SEED=${SEED:-$RANDOM}
printf 'seed %s\n' "$SEED"
RANDOM=$SEED
repo=$T/repo

python3 -m venv "$T/venv" >"$T/out" 2>&1 || die "no virtual environment (Debian package python3-venv): $(tail -n 2 "$T/out")"
if ! "$T/venv/bin/pip" install --quiet --disable-pip-version-check -r "$TESTS/oracle/requirements.txt" >"$T/out" 2>&1; then
    die "pip install -r tests/oracle/requirements.txt: $(tail -n 3 "$T/out" | tr '\n' '|')"
fi
reader() {
    "$T/venv/bin/python" "$TESTS/oracle/reader.py" "$@"
}

# ids: the snapshots that icecore lists, oldest first.
ids() {
    ice --json -r "$repo" snapshots | python3 -c '
import json, sys
for line in sys.stdin:
    value = json.loads(line)
    if value["type"] == "snapshot":
        print(value["id"])'
}

# judged TITLE: both judges look at $repo, and each snapshot is restored by icecore and by the reader.
judged() {
    local title=$1 turn=0 id how mine="$T/mine" theirs="$T/theirs" options
    (cd "$repo" && find packs index snapshots forgotten -type f -exec b3sum {} +) >"$T/sums" || die "b3sum failed"
    if awk '{ n = split($2, part, "/"); if (part[n] != $1) { print $2; bad = 1 } } END { exit bad || NR == 0 }' "$T/sums" >"$T/out"; then
        pass "$title: b3sum agrees with the names of $(wc -l <"$T/sums") objects"
    else
        fail "$title: b3sum disagrees: $(head -n 3 "$T/out" | tr '\n' '|')"
    fi
    step 0 "$title: segments, directories and chunks agree" reader "$repo" check
    mapfile -t listed < <(ids)
    [[ ${#listed[@]} -gt 0 ]] || die "$title: icecore lists no snapshot"
    step 0 "$title: the reader lists" reader "$repo" list
    equal "$(python3 -c 'import json, sys; print(*sorted(json.loads(l)["id"] for l in sys.stdin))' <"$T/out")" \
        "$(printf '%s\n' "${listed[@]}" | sort | paste -sd ' ')" "$title: both list the same snapshots"
    for id in "${listed[@]}"; do
        rm -rf "$mine"
        if [[ -z ${restore_code-} ]]; then
            step 0 "$title: icecore restores ${id:0:8}" ice -r "$repo" restore "$id" "$mine"
        else
            ice -r "$repo" restore "$id" "$mine" >"$T/out" 2>"$T/err" || [[ $? -eq 3 ]] || fail "$title: icecore restores ${id:0:8}"
        fi
        python3 "$TESTS/treelist.py" "$mine" | tail -n +2 >"$T/mine.list" || fail "$title: the restored tree cannot be listed"
        for how in segments packs; do
            options=()
            # From the packs: every other one, to save time.
            [[ $how == segments ]] || { options=(--from-packs) && (((turn += 1) % 2)) || continue; }
            rm -rf "$theirs"
            step 0 "$title: the reader restores ${id:0:8} from $how" reader "${options[@]}" "$repo" restore "$id" "$theirs"
            python3 "$TESTS/treelist.py" "$theirs" | tail -n +2 >"$T/theirs.list" || fail "$title: the reader's tree cannot be listed"
            if diff "$T/mine.list" "$T/theirs.list" >"$T/diff"; then
                pass "$title: ${id:0:8} from $how: $(wc -l <"$T/mine.list") paths, no difference"
            else
                fail "$title: ${id:0:8} from $how: $(head -n 4 "$T/diff" | tr '\n' '|')"
            fi
        done
    done
}

# ------------------------------------------------------------------------------------------- what is captured

"$TESTS/torture.sh" "$T/everything" >"$T/out" 2>"$T/err" || die "torture.sh: $(tail -n 2 "$T/err")"
# A tree that changes, and immutable files named by their hashes, flat and as flatfs blocks.
mkdir -p "$T/data/sub/deep/er" "$T/blocks/AB" "$T/local"
cp -a /usr/share/perl5/. "$T/data/sub" 2>/dev/null || cp -a /usr/include/linux "$T/data/sub/" || die "no tree of some size on this machine"
head -c 12000000 /dev/urandom >"$T/data/big"
ln "$T/data/big" "$T/data/sub/big again"
truncate -s 40M "$T/data/sparse" && printf 'island' | dd of="$T/data/sparse" bs=1 seek=20000000 conv=notrunc status=none
printf 'odd' >"$T/data/"$'not utf-8 \xff\xfe'
setfattr -n user.test -v value "$T/data/big" 2>/dev/null || true
python3 - "$T" "$SEED" <<'PY'
import base64, hashlib, os, random, sys
top, rng = sys.argv[1], random.Random(int(sys.argv[2]))
for i in range(3000):
    data = rng.randbytes(rng.randrange(1, 600))
    digest = hashlib.sha256(data).digest()
    open(f"{top}/local/{digest.hex()}", "wb").write(data)
    name = base64.b32encode(b"\x12\x20" + digest).decode().rstrip("=")
    open(f"{top}/blocks/AB/{name}.data", "wb").write(data)
# A dump whose list of chunks is several list nodes deep.
with open(f"{top}/dump.sql", "w") as out:
    for i in range(400_000):
        out.write(f"{i}\t{rng.randrange(10**9)}\tsome text\t{rng.randrange(10**6)}\n")
PY
age

back_up() {
    ice --json -r "$repo" backup --command "dump=cat $T/dump.sql" "$T/data" "$@"
}

step 0 "init" ice -r "$repo" init
step 0 "everything that there is" ice -r "$repo" backup --allow-empty everything="$T/everything"
step 0 "immutable sources" ice -r "$repo" backup --immutable "$T/blocks" "$T/local"
step 0 "a first backup" back_up
for round in 1 2 3 4; do
    for i in $(seq 30); do head -c $((RANDOM * 3)) /dev/urandom >"$T/data/sub/new.$round.$i"; done
    find "$T/data/sub" -type f | sort | awk -v r=$round 'NR % 97 == r' | while IFS= read -r file; do
        case $((RANDOM % 3)) in 0) rm "$file" ;; 1) printf 'changed\n' >>"$file" ;; 2) chmod 600 "$file" ;; esac
    done
    printf 'round %s\n' "$round" | dd of="$T/data/big" bs=1 seek=$((RANDOM * 300)) conv=notrunc status=none
    sed -i "$((RANDOM * 10 + 1))s/some text/other/" "$T/dump.sql"
    case $round in
    # A directory becomes a file, a file a directory, a directory goes and comes again.
    2) rm -rf "$T/data/sub/deep" && printf 'file' >"$T/data/sub/deep" ;;
    3) rm "$T/data/sub/deep" && mkdir "$T/data/sub/deep" && printf 'again' >"$T/data/sub/deep/one" && rm "$T/data/sparse" && mkdir "$T/data/sparse" ;;
    esac
    printf 'new' >"$T/local/$(printf 'new' | sha256sum | cut -c1-64)"
    age
    step 0 "backup $round" back_up "$T/local"
done
judged "as backed up"

# ---------------------------------------------------------------------------------------- and after other commands
step 0 "key file" ice -r "$repo" key add --new-key-file "$T/key"
step 0 "the reader opens it with the key file" env -u ICECORE_PASSPHRASE "$T/venv/bin/python" "$TESTS/oracle/reader.py" --passphrase-file "$T/key" "$repo" list
step 1 "the reader refuses a wrong secret" env ICECORE_PASSPHRASE=wrong "$T/venv/bin/python" "$TESTS/oracle/reader.py" "$repo" list
says 'seal is broken' "and says so"

# A newer tag, forgotten snapshots, packs copied and swept, segments merged.
mapfile -t listed < <(ids)
step 0 "tag" ice -r "$repo" tag "${listed[0]}" --add old
step 0 "forget" ice -r "$repo" forget "${listed[@]: -3:2}"
step 0 "prune --now" ice -r "$repo" prune --now
judged "after a prune"

# Recovery data, and a pack without any that was damaged: what is lost are holes.
repo=$T/parity
step 0 "init with parity" ice -r "$repo" init --parity 20
step 0 "backup with parity" back_up
head -c 3000000 /dev/urandom >"$T/data/sub/to be lost"
age
step 0 "another" back_up
pack=$(find "$repo/packs" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
printf 'damage' | dd of="$pack" bs=1 seek=100000 conv=notrunc status=none
step 0 "repair packs heals it" ice -r "$repo" repair packs
judged "after healing"
rm -rf "$repo/parity"
printf 'damage' | dd of="$pack" bs=1 seek=100000 conv=notrunc status=none
step 4 "repair packs tells what is lost" ice -r "$repo" repair packs
step 4 "repair snapshots" ice -r "$repo" repair snapshots
# A snapshot that lacks something is restored with 3.
restore_code=any judged "after a loss"
finish
