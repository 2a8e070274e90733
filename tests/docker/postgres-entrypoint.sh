#!/bin/sh
# Does what the official PostgreSQL image's entrypoint does, as far as a test can tell: the first start makes a cluster
# for POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB with a passing server that only local sockets reach; then the
# server runs as user 999 and process 1.
set -eu

data=${PGDATA:-/var/lib/postgresql/data}
user=${POSTGRES_USER:-postgres}
db=${POSTGRES_DB:-$user}

if [ "${1-}" != postgres ]; then
    exec "$@"
fi

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$data" /var/run/postgresql
    chown 999:999 "$data" /var/run/postgresql
    chmod 700 "$data"
    chmod 2777 /var/run/postgresql
    find "$data" ! -user 999 -exec chown 999:999 {} +
    exec /usr/bin/setpriv --reuid=999 --regid=999 --clear-groups -- "$0" "$@"
fi

if [ ! -s "$data/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD-}" ]; then
        echo 'error: the database has no POSTGRES_PASSWORD' >&2
        exit 1
    fi
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    initdb -D "$data" --username="$user" --pwfile=/tmp/password --encoding=UTF8 --no-sync >/dev/null
    rm /tmp/password
    printf '\nhost all all all scram-sha-256\n' >>"$data/pg_hba.conf"
    pg_ctl -D "$data" -o '-c listen_addresses=' -w start >/dev/null
    if [ "$db" != postgres ]; then
        psql -X -q -v ON_ERROR_STOP=1 -U "$user" -d postgres -c "create database \"$db\""
    fi
    pg_ctl -D "$data" -m fast -w stop >/dev/null
    echo 'PostgreSQL init process complete; ready for start up.'
fi

exec "$@"
