#!/usr/bin/env bash
# An event trigger that refuses DDL ("nobody changes the schema of production"). pg_dump restores it before it refreshes materialized
# views, so a restore of a good dump ended half-way with "no ddl", with --replace too, for ever.
# Right: the trigger comes back, and does not fire while the rest of the dump is restored.
. "$(dirname "$0")/lib.sh"
. "$CASES_DIR/server.sh"

cluster one
sql -d postgres -c 'create database aleph'
sql -d aleph -c 'create table files (hash varchar, size bigint, type varchar)' -c "insert into files values ('a', 1, 'file')" \
    -c 'create materialized view sizes as select sum(size) from files' \
    -c "create function refuse() returns event_trigger language plpgsql as \$\$ begin raise exception 'no ddl'; end \$\$" \
    -c 'create event trigger guard on ddl_command_start execute function refuse()'
ice -q node backup --init || exit 2
cluster two
ice node restore latest --dry-run >out 2>&1 || wrong "the dry run: $(tail -n 2 out)"
ice node restore latest >out 2>&1
rc=$?
tail -n 2 out
[ $rc = 0 ] || wrong "a good dump ends half restored (exit code $rc)"
[ "$(sql -d aleph -c 'select * from sizes')" = 1 ] || wrong "the materialized view is not refreshed"
[ "$(sql -d aleph -c 'select evtname from pg_event_trigger')" = guard ] || wrong "the event trigger is not there"
sql -d aleph -c 'create table t (x int)' 2>/dev/null && wrong "the event trigger does not fire afterwards"
right "restored, the trigger with it"
