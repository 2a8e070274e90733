#!/usr/bin/env bash
# The life of a Core Channel Node on a Docker engine, through `icecore node`: found, backed up, backed up while it writes,
# destroyed, restored. node_failures.sh has what goes wrong.
#
# SCALE (1) is the size: 1 is a dump of 235 MB, 50,000 files in local storage, 20,000 blocks of kubo's; SEED repeats a run.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"
. "$TESTS/docker/lib.sh"

have_root "a node on a Docker engine" || finish
engine
images
node=$T/node repo=$T/repo
mkdir -p "$T/docker-data"
export ICECORE_CONFIG=$node/icecore.toml
in_node() { (cd "$node" && "$@"); }

# What a dump does not show: whether partitions, triggers, sequences and views do their work.
alive() {
    local before after
    equal "$(pg_value "select count(*) > 9 and bool_and(relispartition) from pg_class where relname ~ '^c[cr]n_metrics_(2026|default)' and relkind = 'r'")" t "$1: partitions"
    equal "$(pg_value 'select (select count(*) from crn_metrics) = (select sum(n) from (select count(*) n from only crn_metrics_2026_01 union all select count(*) from crn_metrics_2026_02 union all select count(*) from crn_metrics_2026_03 union all select count(*) from crn_metrics_2026_04 union all select count(*) from crn_metrics_2026_05 union all select count(*) from crn_metrics_default) p) and exists (select from ccn_metrics)')" t "$1: their rows"
    equal "$(pg_value 'select (select count(*) from address_stats) = (select count(*) from address_stats_mat_view) or exists (select from address_stats_mat_view)')" t "$1: materialized views are filled"
    equal "$(pg_value "select relispopulated from pg_class where relname = 'empty_mat_view'")" f "$1: and one that was not is not"
    equal "$(pg_value 'select count(*) from message_status s join messages using (item_hash)')" "$(pg_value 'select sum(count) from message_counts')" "$1: no trigger counted the rows of the dump again"
    before=$(pg_value 'select sum(count) from message_counts')
    after=$(pg -At -c 'begin' \
        -c "delete from message_status where item_hash = (select min(item_hash) from messages)" \
        -c "insert into message_status select min(item_hash), 'again', now() from messages" -c 'select sum(count) from message_counts' -c 'rollback' </dev/null)
    equal "$after" $((before + 1)) "$1: the trigger counts"
    equal "$(pg -At -c 'begin' -c "insert into balances (address, chain, eth_height, balance) values ('x', 'ETH', 1, 1) returning id > (select max(id) from balances)" -c 'rollback' </dev/null)" t "$1: the identity column goes on"
    equal "$(pg_value "select count(*) from pg_index i join pg_class c on c.oid = indexrelid join pg_am a on a.oid = relam where amname = 'gin' and indisvalid and relname ~ 'trgm'")" 2 "$1: the indexes of pg_trgm"
}
node_new "$node"
node_up "$node"
node_fill "${SCALE:-1}"
alive "made"
local=$(volume pyaleph-local-storage) ipfs=$(volume pyaleph-ipfs)

files=$(find "$local" -type f | wc -l)
blocks=$(find "$ipfs/blocks" -name '*.data' | wc -l)
bytes=$(dump_now | wc -c)
if [[ ${SCALE:-1} == 0* ]] || ((files >= 50000 && blocks >= 20000 && bytes >= 200000000)); then
    pass "a node with $files files in local storage, $blocks blocks, a dump of $bytes bytes"
else
    fail "a node that is too small: $files files, $blocks blocks, a dump of $bytes bytes"
fi

# ------------------------------------------------------------------------------------------------------------- found

step 0 "node init finds the node" in_node ice -r "$repo" node init --output icecore.toml
for what in "$POSTGRES" pyaleph_pyaleph-local-storage pyaleph_pyaleph-ipfs keys config.yml; do
    says "$what" "it names $what"
done
equal "$(stat -c %a "$node/icecore.toml")" 600 "icecore.toml is its owner's alone"
step 0 "it holds the sources in order" python3 "$DOCKER_TESTS/toml_sources.py" "$node/icecore.toml"
equal "$(cut -d' ' -f1 "$T/out" | tr '\n' ' ')" "db local-storage ipfs keys config " "database first, files behind it"
says "^db postgresql .*container=$POSTGRES user=aleph" "the database by its container"
says '^local-storage tree .*volume=pyaleph_pyaleph-local-storage immutable=True not_older_than=db' "local storage immutable and not older"
step 1 "node init does not overwrite" in_node ice -r "$repo" node init --output icecore.toml
one_error_line "it says so"
docker rename "$POSTGRES" pyaleph-postgres-1
step 0 "node init knows the newer container names" in_node ice -r "$repo" node init --output other.toml
step 0 "its sources" python3 "$DOCKER_TESTS/toml_sources.py" "$node/other.toml"
says '^db .*container=pyaleph-postgres-1' "the container by its new name"
docker rename pyaleph-postgres-1 "$POSTGRES"

# --------------------------------------------------------------------------------------------------------- backed up

step 0 "first backup" ice --json node backup --init
A=$(field snapshot) || die "no snapshot id in the output"
field_is files_new -ge "$((files + blocks))" "all files are in it"
same_dump "$A" "the stored dump is pg_dumpall's"
keep_truth A "$node"
step 0 "what is in kubo's part" ice ls -R "$A:ipfs"
for what in config datastore/CURRENT keystore/ blocks/SHARDING blocks/diskUsage.cache; do
    says "$what" "$what is in it"
done
if grep -E '/(repo\.lock|api|gateway|LOCK|\.temp|put-[^/]*|provider-keystore|autoconf|telemetry_uuid)($|/)' "$T/out" >"$T/junk"; then
    fail "locks and temporary files are left out: $(head -n 3 "$T/junk" | tr '\n' '|')"
else
    pass "locks and temporary files are left out"
fi
docker rename "$POSTGRES" pyaleph-postgres-1
step 0 "a dry run by a file with the old container name" ice node backup --dry-run
docker rename pyaleph-postgres-1 "$POSTGRES"
age
step 0 "the unchanged node again" ice --json node backup
field_is chunks_new -eq 0 "an unchanged database and file storage give no new chunk"

# ------------------------------------------------------------------------------------------------------ it goes on writing

half=$(node_data half begin)
hour 8 >"$T/hour.log" 2>&1 &
writer=$!
sleep 1
step 0 "a backup while the node writes and collects" ice --json node backup
B=$(field snapshot) || die "no snapshot id in the output"
cp "$T/out" "$T/backup-B"
wait "$writer" || die "the hour of writes: $(tail -n 2 "$T/hour.log")"
step 0 "the half-written file" ice --json ls "$B:local-storage/$half"
says '"provisional"' "was captured and is marked provisional"
node_data half end | pg
step 0 "the backup behind it" ice --json node backup
C=$(field snapshot) || die "no snapshot id in the output"
step 0 "the file that was half-written" ice --json ls "$C:local-storage/$half"
if grep -q provisional "$T/out"; then fail "is provisional no more"; else pass "is provisional no more"; fi
equal "$(ice cat "$C:local-storage/$half" | sha256sum | cut -c1-64)" "$half" "and is what its name says"
same_dump "$C" "the stored dump is pg_dumpall's again"
keep_truth C "$node"
step 4 "node check of the while-writing one" ice node check "$B"
says "$half" "it names the half-written file"
step 0 "node check of the latest" ice node check
says 'no pinned file is missing|0 (files )?missing' "nothing is missing in it"

# ---------------------------------------------------------------------------------------- destroyed, and brought back

destroy() {
    compose "$node" down -v --remove-orphans >"$T/compose.log" 2>&1 || die "docker-compose down: $(tail -n 2 "$T/compose.log")"
    [[ -z $(docker volume ls -q) ]] || die "volumes are left"
    rm -rf "$node/keys" "$node/config.yml"
}

# The operator starts the database's server, which makes its volume; all else is made by the restore, which waits for it.
restore() {
    compose "$node" up -d postgres >"$T/compose.log" 2>&1
    ice node restore "$@"
}

destroy
step 1 "the plan of a restore, with what stands in its way" ice node restore latest --dry-run
says "$POSTGRES" "the database's server is not there"
says 'local-storage.*volume pyaleph_pyaleph-local-storage' "the plan says what goes where"
says "image of ipfs: icecore-test/sleeper .*the same as here" "and which images the snapshot ran with"
equal "$(docker volume ls -q | wc -l) $(ls "$node")" "0 $(printf 'docker-compose.yml\nicecore.toml\nother.toml')" "a plan touches nothing"
step 0 "node restore latest" restore latest
node_up "$node"
same_rows "$C" "the database's dump is the stored one"
alive "restored"
same_node C "$node" "restored"
step 0 "node check of the restored node" ice node check --live
says 'no pinned file is missing|0 (files )?missing' "nothing is missing"

lost=$(node_data pick --pin message --place local) root=$(node_data pick --type dir --pin message) flipped=$(node_data pick --pin content)
graced=$(node_data pick --pin grace_period --place local)
local=$(volume pyaleph-local-storage) ipfs=$(volume pyaleph-ipfs)
rm "$local/$graced"
step 0 "a grace period's file is missed by nobody" ice node check --live
rm "$local/$lost" "$ipfs/$root"
step 3 "two pinned files are gone" ice node check --live --list "$T/list"
says '\b2\b' "it counts two"
if grep -q "$lost" "$T/list"; then pass "it names the file"; else fail "it does not name $lost: $(head -n 3 "$T/list")"; fi
printf X | dd of="$local/$flipped" bs=1 conv=notrunc status=none
step 4 "a flipped byte" ice node check --live
says "$flipped" "it names the file"

destroy
step 0 "node restore of the first snapshot" restore "$A"
node_up "$node"
same_rows "$A" "the database's dump is the first stored one"
same_node A "$node" "restored from the first"
step 0 "node check of it" ice node check "$A" --live

# Over what is there: the newest again, by name of its sources.
compose "$node" stop pyaleph pyaleph-api ipfs >"$T/compose.log" 2>&1
step 1 "a database that holds tables is not replaced unasked" ice node restore "$C"
one_error_line "it says so"
same_rows "$A" "and it is untouched"
step 0 "node restore --replace over the older one" ice node restore "$C" --replace
same_rows "$C" "the database's dump is the stored one"
step 0 "node check of it" ice node check --live
verified "$repo"
finish
