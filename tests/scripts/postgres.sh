#!/usr/bin/env bash
# Dumps of a real PostgreSQL database as streams: byte-equal, cheap an hour later, never half.
#
# SCALE (2) is pgbench's scale, TX (SCALE × 25) the transactions between the two dumps. SCALE=20 is the full size; there, if
# restic is installed, the second dump may add at most a tenth of what it adds to restic's repository.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

scale=${SCALE:-2}
tx=${TX:-$((scale * 25))}
bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)
[[ -n $bin ]] || bin=$(dirname "$(command -v initdb || echo /nowhere/initdb)")
[[ -x $bin/initdb && -x $bin/pgbench ]] || die "no PostgreSQL server with pgbench on this machine"

# The server refuses root; its socket's path must be short.
pg=$(mktemp -d /tmp/icecore-pg.XXXXXX)
cleanups+=("rm -rf '$pg'")
if [[ $EUID -eq 0 ]]; then
    chown postgres "$pg"
    server() { (cd / && runuser -u postgres -- "$@"); }
else
    server() { "$@"; }
fi
server "$bin/initdb" -D "$pg/data" -U aleph --auth=trust --no-sync -E UTF8 --locale=C >"$T/initdb.log" 2>&1 || die "initdb: $(tail -n 2 "$T/initdb.log")"
cleanups+=("server '$bin/pg_ctl' -D '$pg/data' -m immediate stop >/dev/null 2>&1")
server "$bin/pg_ctl" -D "$pg/data" -w -l "$pg/log" -o "-k $pg -c listen_addresses= -c fsync=off -c autovacuum=off" start >/dev/null ||
    die "the server does not start"
export PGHOST=$pg PGUSER=aleph PGDATABASE=bench

"$bin/createdb" bench
"$bin/pgbench" -i -q -s "$scale" >/dev/null 2>&1 || die "pgbench -i"
"$bin/psql" -qc "update pgbench_accounts set filler = substr(md5(random()::text) || md5(random()::text) || md5(random()::text), 1, 84)"
"$bin/psql" -qc 'vacuum full'

# Newer tools write a random key into each dump unless they are given one.
dump="$bin/pg_dump"
if "$bin/pg_dump" --help | grep -e --restrict-key >/dev/null; then
    dump+=' --restrict-key=icecore'
fi
repo=$T/repo

$dump >"$T/dump1"
step 0 "first dump" ice --json backup --init -r "$repo" --command "db=$dump"
first=$(repo_bytes "$repo")
step 0 "cat" ice -r "$repo" cat latest:db
same_file "$T/dump1" "$T/out" "it is the dump, byte for byte ($(stat -c %s "$T/dump1") bytes)"
step 0 "the same dump again" ice --json -r "$repo" backup --command "db=$dump"
field_is chunks_new -eq 0 "an unchanged database stores no data chunk"
before=$(repo_bytes "$repo")

"$bin/pgbench" -n -c 1 -t "$tx" >/dev/null 2>&1 || die "pgbench -t $tx"
$dump >"$T/dump2"
cmp -s "$T/dump1" "$T/dump2" && die "the transactions changed nothing"
step 0 "dump after $tx transactions" ice --json -r "$repo" backup --command "db=$dump"
added=$(($(repo_bytes "$repo") - before))
step 0 "cat of the second" ice -r "$repo" cat latest:db
same_file "$T/dump2" "$T/out" "it is the second dump, byte for byte"
if ((added * 8 < first)); then
    pass "it added $added bytes, the first $first"
else
    fail "it added $added bytes, more than an eighth of the first's $first"
fi
step 0 "restore to stdout" ice -r "$repo" restore latest:db -
same_file "$T/dump2" "$T/out" "it is the second dump too"
"$bin/createdb" again
step 0 "the dump loads" "$bin/psql" -q -v ON_ERROR_STOP=1 -d again -f "$T/out"
step 0 "restore to a file" ice -r "$repo" restore latest:db "$T/db.sql"
same_file "$T/dump2" "$T/db.sql" "it is equal"

if ((scale >= 20)) && command -v restic >/dev/null; then
    export RESTIC_PASSWORD=x RESTIC_REPOSITORY=$T/restic RESTIC_CACHE_DIR=$T/restic.cache
    restic -q init || die "restic init"
    restic -q backup --compression auto --stdin <"$T/dump1" || die "restic backup"
    theirs=$(repo_bytes "$T/restic")
    restic -q backup --compression auto --stdin <"$T/dump2" || die "restic backup"
    theirs=$(($(repo_bytes "$T/restic") - theirs))
    if ((added * 10 <= theirs)); then
        pass "restic adds $theirs bytes, we $added"
    else
        fail "restic adds $theirs bytes, we $added: more than a tenth"
    fi
fi

# A dump that fails commits nothing.
snapshots=$(objects "$repo" snapshots)
broken() {
    step 1 "$1" ice -r "$repo" backup --command "db=$2"
    one_error_line "$1"
    equal "$(objects "$repo" snapshots)" "$snapshots" "nothing is committed"
}
broken "a dump that dies half-way" "bash -c '$dump | head -c 1000000; exit 3'"
says '3' "its exit status is told"
broken "a dump that dies behind a pipe" "bash -o pipefail -c '$dump --no-such-option | cat'"
says 'no-such-option' "the end of its stderr is told"
broken "a dump that is killed" "bash -c '$dump | head -c 1000000; kill -KILL \$\$'"
broken "a command that is not there" "/nowhere/pg_dump"
broken "a server that is not there" "$dump -h /nowhere"
step 0 "cat after all that" ice -r "$repo" cat latest:db
same_file "$T/dump2" "$T/out" "latest is still the second dump"

# A tree and a stream in one snapshot; the stream first.
mkdir "$T/keys" && head -c 1000 /dev/urandom >"$T/keys/key"
step 0 "dump and tree in one" ice -r "$repo" backup "$T/keys" --command "db=$dump"
step 0 "its tree" ice -r "$repo" restore latest:keys "$T/keys.back"
same_tree "$T/keys" "$T/keys.back" "is equal"
step 0 "its dump" ice -r "$repo" cat latest:db
same_file "$T/dump2" "$T/out" "is equal"
verified "$repo"
finish
