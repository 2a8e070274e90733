#!/usr/bin/env bash
# A database server that is not as the dump needs it, or that has settings of its own: everything that would end a restore half-way
# is found before the first write, under --dry-run too, and what is there stays; settings meant for the application stop nothing.
#
# Two private servers, without Docker: one is dumped, the other one takes the dump.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

B=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)
[[ -n $B ]] || B=$(dirname "$(command -v initdb || echo /nowhere/initdb)")
[[ -x $B/initdb ]] || die "no PostgreSQL server on this machine"
export PATH=$B:$PATH
if [[ $EUID -eq 0 ]]; then
    server() { (cd / && runuser -u postgres -- "$@"); }
else
    server() { "$@"; }
fi
chmod 755 "$T"

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# start NAME: a new server in $T/NAME; its port is in PORT_NAME.
start() {
    local port
    port=$(free_port)
    mkdir "$T/$1"
    [[ $EUID -ne 0 ]] || chown postgres "$T/$1"
    server "$B/initdb" -D "$T/$1/data" -U aleph --auth=trust --no-sync -E UTF8 --locale=C >"$T/initdb.log" 2>&1 ||
        die "initdb: $(tail -n 2 "$T/initdb.log")"
    server "$B/pg_ctl" -D "$T/$1/data" -w -l "$T/$1/log" -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c wal_level=logical -c max_prepared_transactions=2" start >/dev/null || die "the server does not start"
    cleanups+=("server '$B/pg_ctl' -D '$T/$1/data' -m immediate -w stop >/dev/null 2>&1")
    printf -v "PORT_$1" %s "$port"
}

# from … / into …: psql in the one or the other.
from() { PGOPTIONS='-c default_transaction_read_only=off -c role=none -c statement_timeout=0 -c synchronous_commit=local -c temp_file_limit=-1' psql -X -q -At -w -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PORT_old" -U aleph "$@"; }
into() { PGOPTIONS='-c default_transaction_read_only=off -c role=none -c statement_timeout=0 -c synchronous_commit=local -c temp_file_limit=-1' psql -X -q -At -w -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PORT_new" -U aleph "$@"; }

toml() {
    cat <<TOML
repository = "$T/repo"
[[source]]
name = "db"
kind = "postgresql"
address = "127.0.0.1"
port = $1
user = "aleph"
smallest = "0%"
[[source]]
name = "keys"
kind = "tree"
path = "$T/keys"
[node]
database = "db"
keys = "keys"
TOML
}

mkdir "$T/keys" && echo k >"$T/keys/node-secret.key"
start old
start new
toml "$PORT_old" >"$T/old.toml"
toml "$PORT_new" >"$T/new.toml"
ice_old() { ICECORE_CONFIG=$T/old.toml ice "$@"; }
ice_new() { ICECORE_CONFIG=$T/new.toml ice "$@"; }
first=--init
backup() {
    ice_old node backup $first >"$T/backup.log" 2>&1 || die "node backup: $(tail -n 2 "$T/backup.log")"
    first=
}

# fresh: both servers have a database aleph, the new one's is precious.
fresh() {
    from -d postgres -c 'drop database if exists aleph' -c 'create database aleph' 2>/dev/null || die "the old server"
    from -d aleph -c 'create table files (hash varchar)' -c "insert into files values ('a')"
    into -d postgres -c 'drop database if exists aleph' -c 'create database aleph' 2>/dev/null || die "the new server"
    into -d aleph -c 'create table precious as select generate_series(1, 1000) as a'
}

# refused TITLE WHAT REMEDY: both a dry run and a restore say it, and what is there stays.
refused() {
    backup
    step 1 "$1: a dry run" ice_new node restore latest --replace --dry-run
    says "$2" "$1: it is told"
    says "hint: .*$3" "$1: and what to do"
    step 1 "$1: a restore" ice_new node restore latest --replace
    one_error_line "$1: it is one error"
    says "nothing was written.*$2" "$1: it is told"
    equal "$(into -d aleph -c 'select count(*) from precious' 2>&1)" 1000 "$1: what is there stays"
}

restored() {
    backup
    step 0 "$1" ice_new node restore latest --replace
}

# ------------------------------------------------------------------------------------------------ what the server lacks

# Both servers share the machine's files: in the dump a thing is renamed to what nobody has.
share=$(from -d postgres -c "select setting from pg_config where name = 'SHAREDIR'")
fresh
from -d aleph -c 'create extension hstore' -c 'create extension pg_trgm'
mkdir "$T/fake"
# renamed SED: pg_dumpall whose dump is changed.
renamed() {
    printf '#!/bin/bash\nset -o pipefail\ncase "$*" in *--version*) exec %q "$@" ;; esac\n%q "$@" | sed -E %q\n' \
        "$B/pg_dumpall" "$B/pg_dumpall" "$1" >"$T/fake/pg_dumpall"
    chmod 755 "$T/fake/pg_dumpall"
    PATH=$T/fake:$PATH
}
plain() { PATH=${PATH#"$T/fake:"}; }

renamed 's/EXTENSION (IF NOT EXISTS )?hstore/EXTENSION \1postgis/'
refused "an extension that is not installed" "no extension 'postgis' \(database 'aleph'\)" "install 'postgis' for PostgreSQL"
plain
from -d aleph -c 'drop extension hstore'
restored "an extension that is installed"
equal "$(into -d aleph -c "select count(*) from pg_extension where extname = 'pg_trgm'")" 1 "it is there"

fresh
renamed "s/^(CREATE DATABASE aleph .*LOCALE = )'C'/\\1'xx_XX.utf8'/"
refused "a locale that the machine does not have" "no locale 'xx_XX.utf8'" "create the locale"
plain

fresh
from -d aleph -c "create function lev(text, text) returns int language c strict as '\$libdir/fuzzystrmatch', 'levenshtein'"
renamed 's/libdir.fuzzystrmatch/libdir\/gone/'
refused "a library that is not there" "no library '\\\$libdir/gone'" "install the package of the library"
plain
restored "a library that is there"

fresh
renamed "s/^ALTER DATABASE aleph SET work_mem .*/ALTER DATABASE aleph SET old_thing TO '1';/"
from -d postgres -c "alter database aleph set work_mem = '5MB'"
refused "a setting that the server does not know" "has no setting 'old_thing'" "reset 'old_thing' on the old server"
plain

fresh
from -d aleph -c "create text search dictionary d (template = simple, stopwords = german)"
renamed "s/stopwords = 'german'/stopwords = 'gone'/"
refused "a dictionary's file that is not there" "no $share/tsearch_data/gone.stop" "copy the file gone.stop there"
plain

fresh
renamed 's/^ALTER TABLE public.files OWNER TO aleph/ALTER TABLE public.files OWNER TO nobody_here/'
refused "a role that nobody makes" "no role 'nobody_here'" "create role"
plain

fresh
renamed "s/^-- PostgreSQL database cluster dump complete/\\\\! touch pwned\\n&/"
backup
step 1 "a dump with a command for this machine" ice_new node restore latest --replace
says "not the output of pg_dumpall: .*psql command" "is refused"
equal "$(into -d aleph -c 'select count(*) from precious')" 1000 "what is there stays"
plain

if [[ $EUID -eq 0 ]]; then
    fresh
    mkdir "$T/ts"
    chown postgres "$T/ts"
    from -d postgres -c "create tablespace fast location '$T/ts'"
    from -d aleph -c 'create table t (a int) tablespace fast'
    # Both servers see the same directories: the old one's own is in use.
    refused "a directory that another server uses" "$T/ts of the tablespace 'fast' holds another server's tablespace" "install -d -m 700"
    mkdir "$T/own"
    renamed "s|LOCATION '$T/ts'|LOCATION '$T/own'|"
    refused "a directory of another user's" "$T/own of the tablespace 'fast' is not owned" "owned by the server's user"
    chown postgres "$T/own"
    restored "a directory that is fit"
    restored "and again, over itself"
    into -d postgres -c 'create database other tablespace fast'
    fresh
    from -d aleph -c 'create table t (a int) tablespace fast'
    refused "a tablespace that others use" "tablespace 'fast' is used by databases that stay \(other\)" "set tablespace pg_default"
    into -d postgres -c 'drop database other'
    plain
    from -d aleph -c 'drop table t' && from -d postgres -c 'drop tablespace fast'
fi

# -------------------------------------------------------------------------------------------- databases that cannot be dropped

fresh
into -d aleph -c 'begin' -c 'create table p (a int)' -c "prepare transaction 'held'"
refused "a prepared transaction" "has prepared transactions \(held\)" "rollback prepared"
into -d aleph -c "rollback prepared 'held'"

into -d aleph -c "create subscription sub connection 'dbname=x host=127.0.0.1 port=1' publication p with (connect = false)" 2>/dev/null
refused "a subscription in the database" "has subscriptions \(sub\)" "drop subscription"
into -d aleph -c 'alter subscription sub set (slot_name = none)' -c 'drop subscription sub'

# ------------------------------------------------------------------------------------------------------------- settings

fresh
from -d aleph -c "create table odd (a text[], i interval)" \
    -c "insert into odd select array[null, 'NULL', 'x'], '-1 days +02:03:04'::interval" \
    -c "insert into odd select array[md5(i::text)], make_interval(secs => i) from generate_series(1, 30000) i" -c "create index on odd (a)"
from -d aleph -c "create table big as select i, md5(i::text) as t from generate_series(1, 30000) i" -c "create index on big (t)"
from -d postgres -c 'alter database aleph set default_transaction_read_only = on' \
    -c "alter database aleph set default_transaction_isolation = 'serializable'" \
    -c "alter database aleph set statement_timeout = '100ms'" \
    -c "alter database aleph set idle_in_transaction_session_timeout = '1ms'" \
    -c "alter database aleph set array_nulls = off" \
    -c "alter database aleph set intervalstyle = 'sql_standard'" \
    -c "alter database aleph set temp_file_limit = '100kB'" -c "alter database aleph set maintenance_work_mem = '1MB'" \
    -c "alter database aleph set session_preload_libraries = 'auto_explain'" \
    -c "alter database aleph set session_replication_role = 'replica'" \
    -c "alter database aleph set search_path = 'nowhere'" \
    -c "alter database aleph set standard_conforming_strings = off"
restored "a database with settings for its application"
equal "$(into -d aleph -c "select md5(string_agg(t::text, '|' order by t::text)) from (select a::text, extract(epoch from i) from public.odd) t")" \
    "$(from -d aleph -c "select md5(string_agg(t::text, '|' order by t::text)) from (select a::text, extract(epoch from i) from public.odd) t")" "every row is the same"
equal "$(into -d aleph -c 'select count(*) from public.odd')" 30001 "and none is missing"
equal "$(into -d postgres -c "select setconfig from pg_db_role_setting s join pg_database d on d.oid = setdatabase where datname = 'aleph' and setrole = 0")" \
    "$(from -d postgres -c "select setconfig from pg_db_role_setting s join pg_database d on d.oid = setdatabase where datname = 'aleph' and setrole = 0")" "the settings came back too"
restored "and over it, with its settings in force"

# The server's own configuration, and the role that connects.
fresh
into -d postgres -c 'create role weak' -c "alter role aleph set role = 'weak'"
into -d postgres -c 'alter system set default_transaction_read_only = on' -c "alter system set statement_timeout = '50ms'" -c "alter system set lc_messages = 'C'" \
    -c "alter system set synchronous_standby_names = 'a_standby_that_is_away'" -c 'select pg_reload_conf()' >/dev/null
restored "a server whose configuration says read only"
into -d postgres -c 'alter system reset all' -c 'select pg_reload_conf()' >/dev/null
from -d postgres -c 'alter role aleph set default_transaction_read_only = on' -c "alter role aleph set statement_timeout = '300ms'" -c "alter role aleph set search_path = 'nowhere'"
restored "a role whose transactions only read"
restored "and again"
from -d postgres -c 'alter role aleph reset all'
into -d postgres -c 'alter role aleph reset all'

# ------------------------------------------------------------------------------------------------------------ encodings

fresh
for pair in 'eucjp EUC_JP' 'latin1 LATIN1' 'koi8 KOI8R' 'ascii SQL_ASCII' 'mule MULE_INTERNAL' 'win1250 WIN1250'; do
    read -r name encoding <<<"$pair"
    from -d postgres -c "create database $name encoding '$encoding' template template0 lc_collate 'C' lc_ctype 'C'"
done
PGCLIENTENCODING=UTF8 from -d eucjp -c "create table t (a text)" -c "insert into t values ('日本語')" -c "comment on database eucjp is '日本'"
PGCLIENTENCODING=UTF8 from -d latin1 -c "create table t (a text)" -c "insert into t values ('é')" -c "comment on database latin1 is 'é'"
PGCLIENTENCODING=UTF8 from -d koi8 -c "create table t (a text)" -c "insert into t values ('привет')" -c "comment on database koi8 is 'привет'"
restored "databases of six encodings"
for name in eucjp latin1 koi8; do
    equal "$(PGCLIENTENCODING=UTF8 into -d $name -c 'select a from t')" "$(PGCLIENTENCODING=UTF8 from -d $name -c 'select a from t')" "$name: its rows"
    equal "$(into -d $name -c "select encode(convert_to(shobj_description(oid, 'pg_database'), getdatabaseencoding()), 'hex') from pg_database where datname = '$name'")" \
        "$(from -d $name -c "select encode(convert_to(shobj_description(oid, 'pg_database'), getdatabaseencoding()), 'hex') from pg_database where datname = '$name'")" "$name: its comment"
done
equal "$(into -d postgres -c 'select string_agg(datname, $$ $$ order by datname) from pg_database')" \
    "aleph ascii eucjp koi8 latin1 mule postgres template0 template1 win1250" "no other database is left"
equal "$(into -d postgres -c 'select string_agg(pg_encoding_to_char(encoding), $$ $$ order by datname) from pg_database')" \
    "$(from -d postgres -c 'select string_agg(pg_encoding_to_char(encoding), $$ $$ order by datname) from pg_database')" "each has its encoding"
backup
PGCLIENTENCODING=LATIN1 step 0 "and over themselves, whatever the client's encoding" ice_new node restore latest --replace

# A restore that is cut short says something else than to do the same again.
cat >"$T/fake/psql" <<SH
#!/bin/bash
case "\$*" in *--command*) exec $B/psql "\$@" ;; esac
sed 's/^COPY public.files .*/select 1 \/ 0;/' | exec $B/psql "\$@"
SH
chmod 755 "$T/fake/psql"
PATH=$T/fake:$PATH step 1 "a statement that the server refuses" ice_new node restore latest --replace
says "half restored.*division by zero" "is told"
says "hint: the same dump would fail there again: .*icecore cat [0-9a-f]{8}:db \| psql" "and the way on"
equal "$(into -d template1 -c "select count(*) from pg_database where datname like 'icecore%'")" 0 "no helper is left"
restored "and after that it is whole"
finish
