# A node with private PostgreSQL servers; sourced after lib.sh by the cases that need one.
# shellcheck shell=bash
[ "$(id -u)" = 0 ] || cannot "root is wanted (the server runs as postgres)"
B=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -x "$B/initdb" ] || cannot "no PostgreSQL"
chmod 755 "$T"
pg() { (cd / && runuser -u postgres -- "$@"); }
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# cluster NAME: a private server; sets PORT.
cluster() {
    PORT=$(port)
    mkdir "$T/$1" && chown postgres "$T/$1" && printf pw >"$T/pw" && chmod 644 "$T/pw"
    pg "$B/initdb" -D "$T/$1/data" -U aleph --auth=scram-sha-256 --pwfile="$T/pw" --no-sync -E UTF8 --locale=C >initdb.log 2>&1 || cannot "initdb"
    pg "$B/pg_ctl" -D "$T/$1/data" -w -l "$T/$1/log" \
        -o "-p $PORT -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c wal_level=logical" start >/dev/null || cannot "the server does not start"
    undo+=("(cd / && runuser -u postgres -- $B/pg_ctl -D $T/$1/data -m immediate -w stop)")
    cat >"$T/icecore.toml" <<TOML
repository = "$T/repo"
[[source]]
name = "db"
kind = "postgresql"
address = "127.0.0.1"
port = $PORT
user = "aleph"
password_file = "$T/pgpass"
[[source]]
name = "local"
kind = "tree"
path = "$T/local"
not_older_than = "db"
[[source]]
name = "ipfs"
kind = "tree"
path = "$T/ipfs"
not_older_than = "db"
[[source]]
name = "keys"
kind = "tree"
path = "$T/keys"
[node]
database = "db"
local_storage = "local"
ipfs = "ipfs"
keys = "keys"
TOML
}
sql() { PGPASSWORD=pw "$B/psql" -X -q -w -At -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PORT" -U aleph "$@"; }
mkdir local ipfs keys && echo k >keys/node-secret.key && echo 1 >local/f && echo 1 >ipfs/version
printf '127.0.0.1:*:*:aleph:pw\n' >pgpass && chmod 600 pgpass
export PATH=$B:$PATH
