#!/usr/bin/env bash
# What goes wrong with a Core Channel Node's backups and restores, on a Docker engine: dumps cut short, alarms, refusals, other
# images than before, an old psql, partial restores, a database captured as files. By an icecore.toml written by hand; node.sh has the life of a node.
#
# SCALE (0.02) is the size of the node.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
. "$TESTS/docker/lib.sh"
. "$TESTS/docker/toml_for_node.sh"

have_root "a node on a Docker engine" || finish
engine
images
node=$T/node repo=$T/repo
mkdir -p "$T/docker-data"
export ICECORE_CONFIG=$node/icecore.toml
node_new "$node"
node_up "$node"
node_fill "${SCALE:-0.02}"
toml_for_node "$node" "$repo" >"$node/icecore.toml"

step 0 "first backup, by a file written by hand" ice --json node backup --init
A=$(field snapshot) || die "no snapshot id in the output"
snapshots=$(objects "$repo" snapshots)

# with SED-SCRIPT: the settings changed so, for the commands of the next test.
with() {
    sed -E "$1" "$node/icecore.toml" >"$T/other.toml"
    cmp -s "$node/icecore.toml" "$T/other.toml" && die "sed changed nothing: $1"
    export ICECORE_CONFIG=$T/other.toml
}
as_before() { export ICECORE_CONFIG=$node/icecore.toml; }

# refused TITLE [ARGUMENT]…: node backup fails with one line and commits nothing.
refused() {
    local title=$1
    shift
    step 1 "$title" ice node backup "$@"
    one_error_line "$title"
    equal "$(objects "$repo" snapshots)" "$snapshots" "nothing is committed"
}

# ------------------------------------------------------------------------------------------------------ dumps cut short

# A table that is locked holds the dump behind the first database's rows: the middle, as often as one likes.
hold() {
    docker exec -i "${1:-$POSTGRES}" psql -X -q -v ON_ERROR_STOP=1 -U aleph -d postgres >/dev/null <<'SQL' || die "no second database"
select 'create database zz_held' where not exists (select from pg_database where datname = 'zz_held') \gexec
\c zz_held
create table if not exists held (a int);
SQL
    docker exec "${1:-$POSTGRES}" psql -X -q -U aleph -d zz_held \
        -c 'begin; lock table held in access exclusive mode; select pg_sleep(600)' >/dev/null 2>&1 </dev/null &
}

let_go() {
    docker exec "${1:-$POSTGRES}" psql -X -q -U aleph -d postgres -c "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = 'zz_held'" >/dev/null 2>&1 </dev/null || true
    docker exec "${1:-$POSTGRES}" psql -X -q -U aleph -d postgres -c 'drop database if exists zz_held' >/dev/null 2>&1 </dev/null || true
}

# in_the_middle COMMAND…: runs it as soon as a dump waits for the lock.
in_the_middle() {
    local tries held
    for ((tries = 0; tries < 300; tries++)); do
        held=$(docker exec "${IN-$POSTGRES}" psql -X -At -U aleph -d postgres -c "select count(*) from pg_stat_activity
            where datname = 'zz_held' and wait_event_type = 'Lock'" 2>/dev/null </dev/null) || held=0
        if ((held > 0)); then
            touch "$T/middle"
            "$@"
            return
        fi
        sleep 0.1
    done
}

# Kills the `docker exec` that icecore started, and no other.
kill_exec() {
    local pid
    for pid in $(pgrep -x icecore); do
        [[ $(readlink "/proc/$pid/exe") == "$ICECORE" ]] || continue
        kill -KILL $(pgrep -P "$pid" -x docker) && return
    done
    return 1
}

# half_way TITLE COMMAND…: a backup whose dump meets COMMAND half-way.
half_way() {
    local title=$1 doer
    shift
    rm -f "$T/middle"
    hold
    in_the_middle "$@" >"$T/middle.log" 2>&1 &
    doer=$!
    refused "$title"
    wait "$doer" || true
    [[ -e $T/middle ]] || fail "$title: the dump never was half-way"
}

half_way "docker exec is killed half-way" kill_exec
let_go
half_way "the container is stopped half-way" docker stop -t 5 "$POSTGRES"
refused "a container that does not run"
says "$POSTGRES" "it names the container"
docker start "$POSTGRES" >/dev/null
database_ready "$POSTGRES"
let_go
half_way "the server ends the connection half-way" bash -c "docker exec $POSTGRES psql -q -U aleph -d postgres -c \"select
    pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pg_dump'\""
let_go

with 's/^user = .*/user = "nobody_here"/'
refused "a user that the database does not know"
says nobody_here "it names the user"
with 's/^container = .*/container = "pyaleph_postgrse_1"/'
refused "a container that is not there"
says pyaleph_postgrse_1 "it names the container"
as_before
DOCKER_HOST=unix:///nowhere/docker.sock refused "no engine there"
says 'engine does not answer' "it says so"

# A server that runs for its dump alone.
docker stop -t 5 "$POSTGRES" >/dev/null
with "s|^repository = .*|repository = \"$T/late\"|; s|^container = .*|&\\
before = [\"docker start $POSTGRES\", \"bash -c 'until docker exec $POSTGRES pg_isready -q -U aleph; do sleep 0.2; done'\"]\\
after = \"docker stop -t 5 $POSTGRES\"|"
step 0 "what stands before the dump starts its container" ice node backup --init --source db
equal "$(docker inspect -f '{{.State.Status}}' "$POSTGRES")" exited "and what stands after it stops it"
step 1 "a dry run starts nothing" ice node backup --dry-run --source db
one_error_line "it says so"
equal "$(docker inspect -f '{{.State.Status}}' "$POSTGRES")" exited "it does not run"
docker start "$POSTGRES" >/dev/null
database_ready "$POSTGRES"
as_before

# The disk of the database's container full: the server stops when it cannot write its log, the dump ends half-way.
docker run -d --name pg_full --network none --tmpfs /var/lib/postgresql/data:size=160m -e POSTGRES_USER=aleph -e POSTGRES_PASSWORD=x \
    -e POSTGRES_DB=aleph icecore-test/postgres:15 postgres -c fsync=off -c max_wal_size=64MB >/dev/null
database_ready pg_full
docker exec pg_full psql -q -U aleph -d aleph -c "create table t as select i, md5(i::text) from generate_series(1, 100000) i"
full_disk() {
    docker exec pg_full sh -c 'cat /dev/zero >$PGDATA/fill; i=0
        while [ $i -lt 50 ] && psql -q -U aleph -d postgres -c "create table if not exists w (a int)" -c "drop table w" -c "select pg_switch_wal()"; do
            i=$((i + 1))
        done'
}
with 's/^container = .*/container = "pg_full"/'
rm -f "$T/middle"
hold pg_full
IN=pg_full in_the_middle full_disk >"$T/middle.log" 2>&1 &
refused "the disk of the database's container is full"
wait $! || true
[[ -e $T/middle ]] || fail "the dump never was half-way"
docker rm -f -v pg_full >/dev/null
as_before

if [[ -n ${ENGINE-} ]]; then
    # The engine's own: it cannot start a process in the container.
    cat /dev/zero >"$ENGINE/exec/fill" 2>/dev/null || true
    refused "the disk of the engine's state is full"
    rm "$ENGINE/exec/fill"
fi
step 0 "a backup after all that" ice node backup
snapshots=$(objects "$repo" snapshots)
same_dump latest "the stored dump is pg_dumpall's"

# -------------------------------------------------------------------------------------------------------------- alarms

key=$node/keys/node-secret.pkcs8.der
cp -a "$key" "$T/key"
printf X | dd of="$key" bs=1 seek=100 conv=notrunc status=none
step 5 "a key that changed" ice node backup
says 'node-secret\.pkcs8\.der' "it names the key"
rm "$key"
step 5 "a key that is gone" ice node backup
says 'node-secret\.pkcs8\.der' "it names the key"
step 5 "it goes on being told" ice node backup
cp -a "$T/key" "$key"
step 0 "the right key again" ice node backup
step 0 "the snapshots" ice --json snapshots
equal "$(grep -c '"suspect"' "$T/out")" 3 "three are doubtful"
head -c 100 /dev/urandom >"$node/keys/another.key"
chown 1000:1000 "$node/keys/another.key" && chmod 600 "$node/keys/another.key"
printf Y | dd of="$node/keys/node-pub.key" bs=1 conv=notrunc status=none
step 5 "a key that was changed on purpose" ice node backup
step 0 "and is accepted" ice node backup --accept keys
step 0 "is the new normal" ice --json node backup
C=$(field snapshot) || die "no snapshot id in the output"

# A dump that is much smaller than the last.
dump_now >"$T/dump.C"
pg -c 'create table spare as select * from messages; truncate messages, posts cascade; drop table spare' </dev/null
step 3 "a much smaller dump" ice --json node backup
D=$(field snapshot) || die "no snapshot id in the output"
says 'much less' "says why"
step 3 "and again" ice node backup
step 0 "the snapshots" ice --json snapshots
grep "$D" "$T/out" >"$T/line" || true
if grep -q '"suspect"' "$T/line" && grep -q incomplete "$T/line"; then pass "it is marked"; else fail "it is not marked: $(cut -c1-300 "$T/line")"; fi
step 0 "which is accepted" ice node backup --accept db
step 0 "and is the new normal" ice node backup

# ------------------------------------------------------------------------------------------------------------- restores

step 1 "a restore while services run that write" ice node restore "$C" --replace
one_error_line "it is refused"
says "${PROJECT}_pyaleph_1" "it names one"
compose "$node" stop pyaleph pyaleph-api ipfs >"$T/compose.log" 2>&1
step 1 "file storage older than the database" ice node restore "$A" "$C:db" --replace
one_error_line "it is refused"
says 'older' "it says why"
step 1 "and in the other spelling" ice node restore "$C" "$A:local-storage" --replace --dry-run
step 0 "a database older than the file storage" ice node restore "$C" "$A:db" --replace
same_rows "$A" "is accepted"
step 1 "a database that is doubtful" ice node restore "$D" --replace --dry-run
one_error_line "it is refused"

# ---------------------------------------------------------------------------------------------------- other images than then

# image_of SERVICE: what the last listing of the plan says of it.
image_of() {
    python3 - "$1" "$T/out" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8") if line.startswith("{")]
found = [line for line in lines if line.get("type") == "image" and line["service"] == sys.argv[1]]
warned = [line for line in lines if line.get("type") == "problem" and line["subject"] == f"service '{sys.argv[1]}'"]
print(*(found[0].get(key, "-") for key in ("state", "id", "digest_here")), *(f"{w['severity']}:{w['hint'].split(': ', 1)[1]}" for w in warned))
PY
}
# warned TEXT: on standard error.
warned() {
    if grep -qE -- "$1" "$T/err"; then pass "$2"; else fail "$2: no '$1' in: $(head -n 5 "$T/err" | tr '\n' '|')"; fi
}
id_of() { docker image inspect -f '{{.Id}}' "$1"; }
then=$(id_of icecore-test/sleeper) server=$(id_of icecore-test/postgres:15)
step 0 "the images of a snapshot" ice --json snapshots
grep "$C" "$T/out" >"$T/line"
equal "$(python3 -c 'import json, sys
for image in json.load(sys.stdin)["images"]: print(image["service"], image["image"], image["id"], "/".join(image["sources"]))' <"$T/line")" \
    "ipfs icecore-test/sleeper $then ipfs
postgres icecore-test/postgres:15 $server db
pyaleph icecore-test/sleeper $then keys/config/local-storage
pyaleph-api icecore-test/sleeper $then config/local-storage" "every service's image is recorded, with the sources that it uses"
step 0 "a dry run compares them" ice --json node restore "$C" --replace --dry-run
equal "$(image_of ipfs)" "same $then $then" "kubo's is the same"
docker commit "${PROJECT}_ipfs_1" icecore-test/sleeper:latest >/dev/null
now=$(id_of icecore-test/sleeper)
step 0 "a dry run after another image was pulled under the name" ice --json node restore "$C" --replace --dry-run
equal "$(image_of ipfs)" "other $then $now warning:image: $then" "it warns of kubo's, and says how to pin the one of the snapshot"
equal "$(image_of pyaleph | cut -d' ' -f1) $(image_of postgres | cut -d' ' -f1)" "other same" "and of pyaleph's, not of the server's"
step 1 "a restore that is refused" ice node restore "$C"
warned "^warning: service 'ipfs': .*may refuse the snapshot's settings" "has warned before it touched anything"
warned "^hint: .*at service 'ipfs': image: $then\$" "with the line to write"
sed -i "/^  ipfs:/,/image:/s|image: .*|image: $then|" "$node/docker-compose.yml"
step 0 "a dry run of a restore that leaves the pinned compose file" ice --json node restore "$C:db" "$C:ipfs" --replace --dry-run
equal "$(image_of ipfs | cut -d' ' -f1) $(image_of pyaleph | cut -d' ' -f1)" "same other" "the pinned one is the same"
step 0 "of one that puts the compose file of the snapshot back" ice --json node restore "$C" --replace --dry-run
equal "$(image_of ipfs | cut -d' ' -f1)" other "it is not"
compose "$node" up -d ipfs >"$T/compose.log" 2>&1
equal "$(docker inspect -f '{{.Image}}' "${PROJECT}_ipfs_1")" "$then" "the engine takes the line"
compose "$node" stop ipfs >"$T/compose.log" 2>&1
sed -i "/^  ipfs:/,/image:/s|image: .*|image: icecore-test/sleeper:9|" "$node/docker-compose.yml"
step 0 "a compose file that names another image" ice --json node restore "$C:db" "$C:ipfs" --replace --dry-run
equal "$(image_of ipfs)" "other $then - warning:image: $then" "is warned about"
sed -i "/^  ipfs:/,/image:/s|image: .*|image: icecore-test/sleeper|" "$node/docker-compose.yml"
docker tag "$then" icecore-test/sleeper:latest

# The engine's list of containers has no answer, all else has.
mkdir -p "$T/mute"
cat >"$T/mute/docker" <<SH
#!/bin/sh
if [ "\$1" = ps ]; then
    echo 'Cannot connect to the Docker daemon' >&2
    exit 1
fi
exec $(command -v docker) "\$@"
SH
chmod 755 "$T/mute/docker"
PATH=$T/mute:$PATH step 0 "a backup while the engine does not say which containers there are" ice --json node backup
says '"severity":"note","subject":"images"' "has a note"
id=$(field snapshot)
step 0 "its record" ice --json snapshots
if grep "$id" "$T/out" | grep -q '"images"'; then fail "has no images"; else pass "has no images"; fi

# An old psql, which does not know \restrict.
image_postgres_old
sed -i 's/postgres:15$/postgres:15.1/' "$node/docker-compose.yml"
compose "$node" up -d postgres >"$T/compose.log" 2>&1
database_ready "$POSTGRES"
equal "$(docker exec "$POSTGRES" psql --version)" "psql (PostgreSQL) 15.1" "the container's psql is an old one"
step 0 "a new dump into an old psql" ice node restore "$C:db" --replace
same_rows "$C" "it is the stored one"
step 0 "a backup by the old pg_dumpall" ice node backup --accept db
same_rows latest "is the database's"
sed -i 's/postgres:15.1$/postgres:15/' "$node/docker-compose.yml"
compose "$node" up -d postgres >"$T/compose.log" 2>&1
database_ready "$POSTGRES"

# What is needed first, and the rest while the node runs.
node_data pinned | sort >"$T/pinned"
keep_truth E "$node"
step 0 "a backup of all" ice --json node backup
E=$(field snapshot) || die "no snapshot id in the output"
compose "$node" down -v >"$T/compose.log" 2>&1
rm -rf "$node/keys" "$node/config.yml"
compose "$node" up -d postgres >"$T/compose.log" 2>&1
rm -rf "$node/config.yml" "$node/keys"
database_ready "$POSTGRES"
step 0 "node restore --minimal" ice node restore "$E" --minimal
same_rows "$E" "has the database"
find "$(volume pyaleph-local-storage)" -type f -printf '%f\n' | sort >"$T/there"
same_file "$T/pinned" "$T/there" "has the pinned local files and no others"
equal "$(find "$(volume pyaleph-ipfs)" -name '*.data' | wc -l)" 0 "has no block of kubo's"
node_up "$node"
step 0 "node restore --files while the node runs" ice node restore "$E" --files
# Directories that were there keep the times that they have by now.
touch "$(volume pyaleph-local-storage)" "$(volume pyaleph-ipfs)/blocks"
touch "$T/docker-data/truth-E/local" "$T/docker-data/truth-E/ipfs/blocks" -r "$(volume pyaleph-ipfs)/blocks"
touch "$(volume pyaleph-local-storage)" -r "$(volume pyaleph-ipfs)/blocks"
same_node E "$node" "both together"
step 0 "node check of it" ice node check --live

# ------------------------------------------------------------------------------------------------- other ways to capture

cat >"$T/volume.toml" <<TOML
repository = "$T/repo-volume"

[[source]]
name = "pgfiles"
kind = "tree"
volume = "${PROJECT}_pyaleph-postgres"
before = "docker stop $POSTGRES"
after = "docker start $POSTGRES"
TOML
dump_now >"$T/dump.before"
ICECORE_CONFIG=$T/volume.toml step 0 "the database's volume as files" ice node backup --init
database_ready "$POSTGRES"
pass "its hook started the container again"
pg -c 'truncate files cascade' </dev/null
compose "$node" stop postgres >"$T/compose.log" 2>&1
find "$(volume pyaleph-postgres)" -mindepth 1 -delete
ICECORE_CONFIG=$T/volume.toml step 0 "restore of it" ice restore latest:pgfiles "$(volume pyaleph-postgres)"
compose "$node" up -d postgres >"$T/compose.log" 2>&1
database_ready "$POSTGRES"
dump_now >"$T/dump.after"
same_file "$T/dump.before" "$T/dump.after" "runs and is the same database"

# A server without Docker: its socket's directory.
mkdir -p "$T/sock" && chmod 777 "$T/sock"
docker run -d --name pg_bare --network none -v "$T/sock:/var/run/postgresql" -e POSTGRES_USER=aleph -e POSTGRES_PASSWORD=x -e POSTGRES_DB=aleph \
    icecore-test/postgres:15 >/dev/null
database_ready pg_bare
unrestricted <"$T/dump.after" | docker exec -i pg_bare psql -X -q -U aleph -d postgres >/dev/null 2>&1
sed -E "s|^repository = .*|repository = \"$T/repo-bare\"|; s|^container = .*|address = \"$T/sock\"|" "$node/icecore.toml" >"$T/bare.toml"
export ICECORE_CONFIG=$T/bare.toml
dump_now pg_bare >"$T/dump.bare"
step 0 "a server without Docker" ice node backup --init
ice cat latest:db | unrestricted >"$T/dump.stored"
same_file "$T/dump.bare" "$T/dump.stored" "its dump is stored"
docker exec pg_bare psql -q -U aleph -d aleph -c 'truncate files cascade'
step 1 "a restore beside services that write" ice node restore latest:db --replace
compose "$node" stop pyaleph pyaleph-api ipfs >"$T/compose.log" 2>&1
step 0 "and restored" ice node restore latest:db --replace
for dump in bare again; do
    [[ $dump == bare ]] || dump_now pg_bare >"$T/dump.again"
    python3 "$DOCKER_TESTS/rows_in_order.py" <"$T/dump.$dump" >"$T/rows.$dump"
done
same_file "$T/rows.bare" "$T/rows.again" "it is the same database"
docker rm -f -v pg_bare >/dev/null
as_before

with 's/^user = /usr = /'
step 2 "a word that icecore.toml does not have" ice node backup
says "line 7, source 'db' 'usr'" "it is named"
as_before
verified "$repo"
finish
