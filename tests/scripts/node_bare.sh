#!/usr/bin/env bash
# A node without Docker, by an icecore.toml written by hand: a server that wants a password, on a port of its own; names that
# need quotes; its dump, and the way back into an empty server.
#
# PG_WAYS: which PostgreSQL is dumped and which takes the dump back, as directories of programs FROM or FROM>INTO, separated by
# blanks; PROGRAMS@FROM dumps it with another version's programs. Without it the newest of this machine does all.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

newest=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)
[[ -n $newest ]] || newest=$(dirname "$(command -v initdb || echo /nowhere/initdb)")
PASSWORD='a pass: \ "word"'

# The servers refuse root.
if [[ $EUID -eq 0 ]]; then
    server() { (cd / && runuser -u postgres -- "$@"); }
else
    server() { "$@"; }
fi

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# cluster BIN DIRECTORY: a new, empty server with a password, at $PGHOST:$PGPORT. The last one is stopped.
cluster() {
    local bin=$1 directory=$2
    stop
    mkdir "$directory"
    [[ $EUID -ne 0 ]] || chown postgres "$directory"
    printf '%s' "$PASSWORD" >"$T/pw"
    chmod 644 "$T/pw"
    server "$bin/initdb" -D "$directory/data" -U aleph --auth=scram-sha-256 --pwfile="$T/pw" --no-sync -E UTF8 --locale=C >"$T/initdb.log" 2>&1 ||
        die "initdb: $(tail -n 2 "$T/initdb.log")"
    running="'$bin/pg_ctl' -D '$directory/data' -m immediate -w stop"
    server "$bin/pg_ctl" -D "$directory/data" -w -l "$directory/log" \
        -o "-p $PGPORT -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off" start >/dev/null || die "the server does not start"
}
running=
stop() {
    [[ -z $running ]] || eval "server $running" >/dev/null 2>&1 || true
    running=
}
cleanups+=(stop)

sql() {
    PGPASSFILE=$T/.pgpass "$bin/psql" -X -q -w -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PGPORT" -U aleph "$@"
}

# A database's name as a connection string.
conninfo() {
    printf "dbname='%s'" "$(sed "s/[\\\\']/\\\\&/g" <<<"$1")"
}

# Every row of every table, every role and every large object, as lines.
everything() {
    local db
    sql -At -d postgres -c "select rolname, rolsuper, rolcanlogin, rolpassword from pg_authid where rolname !~ '^pg_' order by 1" \
        -c "select r.rolname, m.rolname from pg_auth_members a join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member where m.rolname !~ '^pg_' order by 1, 2" \
        -c "select datname, pg_get_userbyid(datdba), datconnlimit, datistemplate, datallowconn, array(select unnest(datacl)::text order by 1) from pg_database order by 1" \
        -c "select d.datname, r.rolname, s.setconfig from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole order by 1, 2" </dev/null
    sql -At -d postgres -c "select datname from pg_database where datallowconn order by 1" </dev/null >"$T/databases"
    while IFS= read -r db; do
        printf '== %s\n' "$db"
        sql -At -d "$(conninfo "$db")" <<'SQL'
select format('select %L, count(*), md5(string_agg(t::text, E''\n'' order by t::text)) from %s t', c.oid::regclass, c.oid::regclass)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' order by c.oid::regclass::text \gexec
select loid, md5(string_agg(data, '' order by pageno)) from pg_largeobject group by 1 order by 1;
select schemaname, sequencename, last_value from pg_sequences order by 1, 2;
SQL
    done <"$T/databases"
}

odd_things() {
    sql -d postgres <<'SQL'
create role "Odd ""role"" 'of' \names" login password 'x';
create role readers;
grant readers to "Odd ""role"" 'of' \names" with admin option;
alter role readers set search_path = 'a b', "c""d";
create database "An Odd ""db"" it's \here" owner "Odd ""role"" 'of' \names" connection limit 7;
create database template_like is_template true;
create database closed;
create database "dbname=postgres";
alter database "An Odd ""db"" it's \here" set work_mem = '5MB';
grant connect on database closed to readers;
SQL
    sql -d "$(conninfo "An Odd \"db\" it's \\here")" >/dev/null <<'SQL'
create schema "Sch ema";
create table "Sch ema"."Ta ble" ("id" int generated always as identity primary key, "co l" text, "b" bytea);
insert into "Sch ema"."Ta ble" ("co l", "b") values (E'\\.', '\x00ff'), (E'a\\.\nb', null), (E'\\.\n\\.', '\x5c2e'), ('\unrestrict x', '\x0a'),
    ('-- PostgreSQL database cluster dump complete', ''), (E'\\connect postgres', ''), (null, null), (repeat(E'long \\ \t line', 300000), '');
create function "Sch ema".f() returns text language sql as $f$
select '
\connect template1
COPY nothing FROM stdin;
\.
DROP ROLE aleph;
'::text $f$;
select lo_from_bytea(4711, '\x1c'), lo_from_bytea(4712, repeat('abc', 100000)::bytea);
create view v as select 1 as a;
create materialized view mv as select 2 as b;
create table parts (a int) partition by range (a);
create table parts_1 partition of parts for values from (0) to (10);
insert into parts values (3);
SQL
    # Another application, with a table of a name that pyaleph has too.
    sql -d "$(conninfo dbname=postgres)" -c 'create table files (id int)' -c 'insert into files values (7)'
    sql -d 'dbname=template1' -c 'create table in_template1 (a int)' -c 'insert into in_template1 values (9)'
    sql -d postgres -c 'create table in_postgres (a int)' -c 'insert into in_postgres values (8)'
}

# way DUMP RESTORE: there with the one's programs, back with the other's.
way() {
    local from=${1##*@} bin=${1##*@} programs=${1%%@*} into=$2 name repo W
    name="$("$from/postgres" --version | grep -oE '[0-9.]+' | head -n 1)"
    W=$T/$((++ways)) repo=$T/$ways/repo
    mkdir -p "$W/local" "$W/ipfs" "$W/keys"
    PGPORT=$(free_port)
    printf '127.0.0.1:%s:*:aleph:%s\n' "$PGPORT" "$(sed -e 's/[\\:]/\\&/g' <<<"$PASSWORD")" >"$T/.pgpass"
    chmod 600 "$T/.pgpass"
    cluster "$from" "$W/pg"
    sql -d postgres -c 'create database aleph'
    python3 "$TESTS/docker/node_data.py" make --state "$W/state" --local "$W/local" --kubo "$W/ipfs" --seed "$ways" --files 200 --blocks 100 --posts 200 ||
        die "the generator of file storage"
    python3 "$TESTS/docker/node_data.py" sql --state "$W/state" | sql -d aleph || die "the generator's rows do not load"
    odd_things || die "odd names do not load"
    printf 'a key' >"$W/keys/node-secret.key"
    chmod 600 "$W/keys/node-secret.key"
    cat >"$W/icecore.toml" <<TOML
repository = "$repo"
[[source]]
name = "db"
kind = "postgresql"
address = "127.0.0.1"
port = $PGPORT
user = "aleph"
password_file = "$T/.pgpass"
[[source]]
name = "local"
kind = "tree"
path = "$W/local"
immutable = true
not_older_than = "db"
[[source]]
name = "ipfs"
kind = "tree"
path = "$W/ipfs"
immutable = true
not_older_than = "db"
[[source]]
name = "keys"
kind = "tree"
path = "$W/keys"
unchanged = "alarm"
[node]
database = "db"
local_storage = "local"
ipfs = "ipfs"
keys = "keys"
TOML
    export ICECORE_CONFIG=$W/icecore.toml
    everything >"$W/before" || die "the database cannot be read"
    cp -a "$W/local" "$W/local.before"

    PATH=$programs:$PATH step 0 "PostgreSQL $name: backup" ice node backup --init
    PATH=$programs:$PATH step 0 "and again" ice --json node backup
    field_is chunks_new -eq 0 "nothing is new"
    sed "s|^password_file.*|password_file = \"$W/wrong\"|" "$W/icecore.toml" >"$W/wrong.toml"
    printf '127.0.0.1:*:*:*:another\n' >"$W/wrong"
    chmod 600 "$W/wrong"
    PATH=$programs:$PATH ICECORE_CONFIG=$W/wrong.toml step 1 "a wrong password" ice node backup
    one_error_line "it is told"
    rm "$W/wrong"
    PATH=$programs:$PATH ICECORE_CONFIG=$W/wrong.toml step 1 "no file with a password" ice node backup
    one_error_line "it is told"
    ! grep -rF "$PASSWORD" "$T/err" "$T/out" >/dev/null || fail "the password is shown"
    step 0 "check" ice node check

    bin=$into
    name="$("$from/postgres" --version | grep -oE '[0-9.]+' | head -n 1) → $("$into/postgres" --version | grep -oE '[0-9.]+' | head -n 1)"
    cluster "$into" "$W/pg2"
    find "$W/local" -type f -delete
    rm "$W/keys/node-secret.key"
    PATH=$into:$PATH step 0 "PostgreSQL $name: restore" ice node restore latest
    everything >"$W/after" || fail "the restored database cannot be read"
    if [[ ${from%%.*} == "${into%%.*}" ]]; then
        same_file "$W/before" "$W/after" "the same roles, databases, rows and large objects"
    else
        diff "$W/before" "$W/after" >"$W/diff" && pass "the same roles, databases, rows and large objects" ||
            fail "what came back is another: $(head -n 6 "$W/diff" | tr '\n' '|')"
    fi
    same_tree "$W/local.before" "$W/local" "the same files"
    PATH=$into:$PATH step 1 "restore over it" ice node restore latest
    says "replace" "is refused"
    PATH=$into:$PATH step 0 "restore over it with --replace" ice node restore latest --replace
    everything >"$W/again" || fail "the restored database cannot be read"
    same_file "$W/after" "$W/again" "the same again"
    in_the_way
    stop
}

# fake PROGRAM: a program of this name before the real one in $PATH, with the script on standard input; $REAL is the real one.
fake() {
    mkdir -p "$W/fake"
    { printf '#!/bin/bash\nREAL=%q\n' "$into/$1" && cat; } >"$W/fake/$1"
    chmod 755 "$W/fake/$1"
}

# What a restore must not take for what it is not.
in_the_way() {
    local back=(env PATH="$into:$PATH" "$ICECORE" node restore latest)
    sql -d postgres -c 'alter database aleph allow_connections false'
    step 1 "restore over a database that lets nobody look" "${back[@]}"
    says "aleph.*accepts no connections" "is refused"
    # As a server leaves it that goes down while it drops it; older ones know no such state.
    sql -d postgres -c "update pg_database set datallowconn = true, datconnlimit = -2 where datname = 'aleph'"
    step 0 "restore over what is left of a database" "${back[@]}" --replace
    everything >"$W/again" || fail "the restored database cannot be read"
    same_file "$W/after" "$W/again" "the same again"

    # Who is between us and psql may lose the end, and psql is content with what it got.
    fake psql <<<'case "$*" in *--command*) exec "$REAL" "$@" ;; esac; cat >"$0.in"; head -c 150000 "$0.in" | sed "\$d" | exec "$REAL" "$@"'
    step 1 "a dump whose end psql never saw" env PATH="$W/fake:$into:$PATH" "$ICECORE" node restore latest --replace
    says "half restored.*did not reach the end" "is told"
    rm "$W/fake/psql"
    step 0 "and again" "${back[@]}" --replace

    # A server that is somebody else's can put anything into its dump.
    fake pg_dumpall <<<'case "$*" in *--version*) exec "$REAL" "$@" ;; esac
"$REAL" "$@" | sed "s|^-- PostgreSQL database cluster dump complete|\\\\! touch '"$W/pwned"'\n&|"'
    step 0 "a dump with a command for this machine" env PATH="$W/fake:$into:$PATH" "$ICECORE" node backup
    ice cat latest:db | grep -aF '\! touch' >/dev/null || fail "the dump has no such command"
    step 1 "its restore" "${back[@]}" --replace
    says "a psql command where none is allowed" "is refused"
    everything >"$W/again" || fail "the database cannot be read"
    same_file "$W/after" "$W/again" "before anything is written"
    [[ ! -e $W/pwned ]] && pass "the command did not run" || fail "the command ran"
    rm "$W/fake/pg_dumpall"
}

ways=0
for pair in ${PG_WAYS:-$newest}; do
    from=${pair%%>*} into=${pair##*>} into=${into##*@}
    [[ -x ${from##*@}/initdb && -x ${from%%@*}/pg_dumpall && -x $into/initdb ]] || die "no PostgreSQL in $pair"
    way "$from" "$into"
done
finish
