#!/usr/bin/env bash
# Makes two dumps of one PostgreSQL database, some transactions apart: DIR/1.sql and DIR/2.sql.
#
#   benches/make_dumps.sh DIR [SCALE [TRANSACTIONS]]     (20, 500)
#
# pgbench's tables with `filler` set to text that does not compress away; a private server without TCP.
set -euo pipefail
export LC_ALL=C
out=$(realpath -m "${1:?usage: make_dumps.sh DIR [SCALE [TRANSACTIONS]]}")
scale=${2:-20}
transactions=${3:-500}
bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)
[[ -n $bin ]] || bin=$(dirname "$(command -v initdb)")
pg=$(mktemp -d /tmp/icecore-pg.XXXXXX)
as_server() { "$@"; }
if [[ $EUID -eq 0 ]]; then
    chown postgres "$pg"
    as_server() { (cd / && runuser -u postgres -- "$@"); }
fi
trap 'as_server "$bin/pg_ctl" -D "$pg/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$pg"' EXIT
as_server "$bin/initdb" -D "$pg/data" -U aleph --auth=trust --no-sync -E UTF8 --locale=C >/dev/null
as_server "$bin/pg_ctl" -D "$pg/data" -w -l "$pg/log" -o "-k $pg -c listen_addresses= -c fsync=off -c autovacuum=off" start >/dev/null
export PGHOST=$pg PGUSER=aleph PGDATABASE=bench
"$bin/createdb"
"$bin/pgbench" -i -q -s "$scale" >/dev/null 2>&1
"$bin/psql" -qc "update pgbench_accounts set filler = substr(md5(aid::text) || md5(aid || 'a') || md5(aid || 'b'), 1, 84)"
"$bin/psql" -qc 'vacuum full'
dump=("$bin/pg_dump")
if "$bin/pg_dump" --help | grep -e --restrict-key >/dev/null; then
    dump+=(--restrict-key=icecore)
fi
mkdir -p "$out"
"${dump[@]}" >"$out/1.sql.part"
"$bin/pgbench" -n -c 1 -t "$transactions" --random-seed=1 >/dev/null 2>&1
"${dump[@]}" >"$out/2.sql"
mv "$out/1.sql.part" "$out/1.sql"
