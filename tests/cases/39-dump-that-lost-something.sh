#!/usr/bin/env bash
# Dumps that came through a pipe, a terminal or a hand: the exit code of `pg_dumpall` was nobody's (`pg_dumpall | icecore backup
# --stdin db`), its warnings went in between (2>&1), `docker exec -t` made CR LF of each newline, an option left half of it out.
# `node restore --dry-run` found nothing in the way; the restore then dropped the databases and ended at the first thing that
# the server objects to, or restored a part in silence, with exit code 0.
# Right: each is refused before the first write, also by --dry-run; a whole dump, --if-exists or not, comes back.
. "$(dirname "$0")/lib.sh"
. "$CASES_DIR/server.sh"

cluster one
sql -d postgres -c 'create database aleph'
sql -d aleph -c 'create table t (a int, b text)' -c "insert into t select g, 'row ' || g from generate_series(1, 500) g" \
    -c 'create function one() returns int language plpgsql stable as $$begin return two(); end$$' \
    -c 'create function two() returns int language sql stable as $$select 2$$' -c 'create materialized view v as select one()'
export PGPASSWORD=pw
dump() { pg_dumpall -h 127.0.0.1 -p "$PORT" -U aleph "$@"; }
dump --clean >whole
number=0
# restored FILE OPTION…: puts it into a repository of its own as the node's dump, and restores that.
restored() {
    local file=$1
    shift
    ICECORE_REPO=$T/repo.$((number += 1))
    ice -q backup --init --stdin db --accept db <"$file" >out 2>&1 || exit 2
    ice node restore latest:db "$@" >out 2>&1
}
cut_at() { sed "/$1/,\$d" whole; }
cut_at 'Database "postgres" dump' >at_rest
cut_at '^250'$'\t' >in_rows
sed 's/$/\r/' whole >crlf
sed '/^CREATE TABLE/i pg_dump: warning: there are circular foreign-key constraints' whole >warning
sed '/^250\t/i pg_dump: error: connection lost' whole >among_rows
sed 's/^250\t/250\t\x00/' whole >zeros
dump >no_clean
dump --clean --globals-only >globals
dump --clean --schema-only >schema
dump --data-only >data
pg_dump -h 127.0.0.1 -p "$PORT" -U aleph --clean --create aleph >single
pg_dump -h 127.0.0.1 -p "$PORT" -U aleph -Fc aleph >custom
gzip -k whole
for file in at_rest in_rows crlf warning among_rows zeros no_clean globals schema data single custom whole.gz; do
    options=--dry-run
    # What was restored in silence, and what ended half-way: without the option too.
    case $file in at_rest | crlf) options="--dry-run -" ;; esac
    for options in $options; do
        options=${options#-}
        restored "$file" --replace ${options:+"-$options"} && wrong "'$file' is taken ($options)"
        grep -q '^hint: ' out || wrong "'$file': no hint: $(tail -n 1 out)"
        [ "$(sql -d aleph -c 'select count(*) from t')" = 500 ] || wrong "'$file' has cost the database: $(tail -n 2 out)"
    done
done
# A dump that lost its end does not count, unless it is accepted.
ICECORE_REPO=$T/repo.$((number += 1))
cut_at '^490'$'\t' >late
ice -q backup --init --stdin db <late >out 2>&1
rc=$?
[ $rc = 3 ] && ice snapshots | grep -q suspect || wrong "a dump that lost its end counts as good (exit code $rc)"
# A view whose query needs a search path stays empty and is named; all else is there.
dump --clean --if-exists >if_exists
for file in whole if_exists; do
    restored "$file" --replace
    rc=$?
    [ $rc = 3 ] || wrong "'$file': exit code $rc: $(tail -n 2 out)"
    grep -q 'materialized view stays empty: public.v in aleph: function two() does not exist' out || wrong "the view is not named: $(cat out)"
    [ "$(sql -d aleph -c 'select count(*) from t')" = 500 ] || wrong "'$file' did not come back"
done
right "torn and partial dumps are refused before anything is dropped"
