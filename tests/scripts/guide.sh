#!/usr/bin/env bash
# Runs the operator's guide, docs/ccn.md: each block of commands in its order, on a node on a Docker engine, in a root directory of
# its own in which /opt/pyaleph, /backup and /etc/icecore are what the guide says. What the guide's words say meanwhile (all is
# lost, a new server) is done between the blocks. A command in the text that nobody runs here is a failure.
#
# SCALE (0.02) is the size of the node.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
. "$TESTS/docker/lib.sh"

have_root "the operator's guide" || finish
engine
images
docker tag icecore-test/postgres:15 postgres:15
guide=$TESTS/../docs/ccn.md

# ----------------------------------------------------------------------------------------------------- a root of its own

# Everything of this machine, and what is written stays apart; the engine's directories are the real ones.
root=$T/root
mkdir -p "$T/over" "$root"
mount -t tmpfs -o size=1g,mode=755 tmpfs "$T/over" || die "cannot mount a tmpfs"
cleanups+=("umount -R -l '$T/over'")
mkdir "$T/over/upper" "$T/over/work"
mount -t overlay -o "lowerdir=/,upperdir=$T/over/upper,workdir=$T/over/work" overlay "$root" || die "cannot mount an overlay"
cleanups+=("umount -R -l '$root'")
for directory in proc sys dev run tmp; do
    mount --rbind "/$directory" "$root/$directory"
    mount --make-rslave "$root/$directory"
done
rm -rf "$root/opt/pyaleph" "$root/backup" "$root/etc/icecore" "$root/var/cache/icecore" "$root/var/lib/icecore" "$root/root/icecore-settings"
mkdir -p "$root/opt/pyaleph" "$root/backup" "$root/checkout"
cp -a "$TESTS/../docs" "$root/checkout/docs"
install -m 755 "$ICECORE" "$root/usr/local/bin/icecore"

# `docker compose` is docker-compose here.
cat >"$root/usr/local/sbin/docker" <<SH
#!/bin/bash
if [[ \$1 == compose ]]; then
    shift
    exec docker-compose -p $PROJECT "\$@"
fi
exec $(command -v docker) "\$@"
SH
# No systemd runs here: units are checked by its own checker, and what a timer starts is run once.
cat >"$root/usr/local/sbin/systemctl" <<'SH'
#!/bin/bash
set -eu
[[ $1 != daemon-reload ]] || exit 0
[[ $1 == enable && $2 == --now ]] || { echo "not expected: systemctl $*" >&2; exit 1; }
shift 2
for timer in "$@"; do
    service=/etc/systemd/system/${timer%.timer}.service
    if command -v systemd-analyze >/dev/null; then
        said=$(systemd-analyze verify "/etc/systemd/system/$timer" "$service" 2>&1 | grep -F "${timer%.timer}" || true)
        [[ -z $said ]] || { printf '%s\n' "$said" >&2; exit 1; }
    fi
    command=$(sed -n 's/^ExecStart=//p' "$service")
    $(sed 's/%%/%/g' <<<"$command")
done
SH
chmod 755 "$root/usr/local/sbin/docker" "$root/usr/local/sbin/systemctl"

# inside SCRIPT: as root in that root, where nothing of ours is set, from a checkout.
inside() {
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C \
        DOCKER_HOST="$DOCKER_HOST" DOCKER_CONFIG="$DOCKER_CONFIG" COMPOSE_INTERACTIVE_NO_CLI=1 \
        chroot "$root" bash -euo pipefail -c "cd /checkout
$1"
}

# ------------------------------------------------------------------------------------------------------------ the guide

# Blocks of a kind, in files: blocks/NUMBER, with the heading above each in blocks/NUMBER.title.
python3 - "$guide" "$T/blocks" <<'PY'
import os, re, sys
guide, out = sys.argv[1:]
os.makedirs(out)
heading, number, block, kind = "", 0, None, None
for line in open(guide, encoding="utf-8"):
    if block is None and line.startswith("## "):
        heading = line[3:].strip()
    elif block is None and line.startswith("```"):
        block, kind = [], line[3:].strip()
    elif block is not None and line.startswith("```"):
        number += 1
        name = f"{out}/{number:02}.{kind}"
        open(name, "w", encoding="utf-8").write("".join(block))
        open(f"{out}/{number:02}.title", "w", encoding="utf-8").write(heading)
        block = None
    elif block is not None:
        block.append(line)
text = re.sub(r"^```.*?^```", "", open(guide, encoding="utf-8").read(), flags=re.S | re.M)
spans = {span for span in re.findall(r"`([^`]+)`", text) if re.match(r"(icecore|docker) ", span)}
open(f"{out}/spans", "w", encoding="utf-8").write("\n".join(sorted(spans)) + "\n")
PY

node=$root/opt/pyaleph
node_new "$node"
node_up "$node"
node_fill "${SCALE:-0.02}"
age

# What the words between the blocks say.
all_is_lost() {
    compose "$node" down -v --remove-orphans >"$T/compose.log" 2>&1 || die "docker-compose down: $(tail -n 2 "$T/compose.log")"
    rm -rf "$node" "$root/etc/icecore" "$root/var/cache/icecore" "$root/var/lib/icecore"
    mkdir "$node"
}

title=
for block in "$T"/blocks/*.sh; do
    number=$(basename "$block" .sh)
    before=$title
    title=$(cat "${block%.sh}.title")
    if [[ $title == Restore && $before != Restore ]]; then
        keep_truth guide "$node"
        all_is_lost
    elif [[ $title == "A drill" ]]; then
        for toml in "$T"/blocks/*.toml; do
            [[ $(cat "${toml%.toml}.title") == "A drill" ]] || continue
            sed "s/^host = .*/host = \"$(uname -n)\"/" "$toml" >"$root/etc/icecore/drill.toml"
        done
    fi
    step 0 "$title: block $number" inside "$(cat "$block")"
    if [[ $title == Restore && $(cat "$block") == *"--live"* ]]; then
        same_node guide "$node" "after the restore"
    fi
done
[[ -n $title ]] || fail "the guide has no block of commands"

# --------------------------------------------------------------------------------------------------- commands in the text

volumes=$(dirname "$(dirname "$(volume pyaleph-postgres)")")
while read -r span; do
    case $span in
    # Names of commands, and the old way.
    '' | 'icecore node' | 'icecore node restore' | 'docker save' | 'docker load' | 'docker exec -t … pg_dumpall > dump.sql') ;;
    'icecore config show' | 'icecore node backup --accept db' | 'icecore node backup' | 'icecore node check --live' | 'icecore snapshots' | 'icecore snapshots --json') step 0 "in the text: $span" inside "$span" ;;
    'docker compose stop pyaleph pyaleph-api ipfs' | 'docker compose up -d') step 0 "in the text: $span" inside "cd /opt/pyaleph; $span" ;;
    'icecore copy --to /mnt/usb/repo')
        step 0 "in the text: $span" inside "mkdir -p /mnt/usb; echo other >/root/other; chmod 600 /root/other; ICECORE_TO_PASSPHRASE_FILE=/root/other icecore init -r /mnt/usb/repo --passphrase-file /root/other; ICECORE_TO_PASSPHRASE_FILE=/root/other $span"
        ;;
    'icecore node restore 4f1c9a02 latest:local-storage latest:ipfs')
        id=$(inside 'icecore --json snapshots' | head -n 1 | python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])')
        compose "$node" stop pyaleph pyaleph-api ipfs >"$T/compose.log" 2>&1
        step 0 "in the text: $span" inside "${span/4f1c9a02/$id} --replace"
        ;;
    'icecore restore SNAP:postgres-files /var/lib/docker/volumes/pyaleph_pyaleph-postgres/_data')
        for toml in "$T"/blocks/*.toml; do
            [[ $(cat "${toml%.toml}.title") == "The database as files" ]] || continue
            sed "s/pyaleph-postgres-1/$POSTGRES/" "$toml" >>"$root/etc/icecore/icecore.toml"
        done
        # A list of tables may stand anywhere between others.
        step 0 "the database as files" inside "icecore backup --source postgres-files"
        database_ready "$POSTGRES"
        docker stop "$POSTGRES" >/dev/null
        find "$(volume pyaleph-postgres)" -mindepth 1 -delete
        step 0 "in the text: $span" inside "icecore restore latest:postgres-files $volumes/${PROJECT}_pyaleph-postgres/_data"
        docker start "$POSTGRES" >/dev/null
        database_ready "$POSTGRES"
        equal "$(pg_value 'select count(*) > 0 from files')" t "it is a running database again"
        ;;
    *) fail "in the text, and run by nobody: $span" ;;
    esac
done <"$T/blocks/spans"
finish
