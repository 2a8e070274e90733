#!/bin/sh
# PostgreSQL's tools as they were before \restrict: psql, pg_dump and pg_dumpall 15.1, played by newer ones.
set -eu
set -o pipefail

name=$(basename "$0")
# In a directory of their own: pg_dumpall looks for a pg_dump of its version beside itself.
real=$(dirname "$0")/../new/$name
for word in "$@"; do
    case $word in
    --version | -V)
        echo "$name (PostgreSQL) 15.1"
        exit 0
        ;;
    --help | '-?')
        exec "$real" "$@" | sed '/--restrict-key/d'
        ;;
    --restrict-key*)
        echo "$name: unrecognized option '$word'" >&2
        echo "$name: hint: Try \"$name --help\" for more information." >&2
        exit 1
        ;;
    esac
done

case $name in
psql)
    for word in "$@"; do
        case $word in
        -c* | --command* | -l | --list) exec "$real" "$@" ;;
        -f* | --file*)
            echo 'this old psql reads standard input only' >&2
            exit 1
            ;;
        esac
    done
    # An unknown command is an error to the newer one too, and its message is the same.
    /usr/bin/sed -u 's/^\\\(un\)\{0,1\}restrict /\\\1restrict_unknown /' | "$real" "$@"
    ;;
*)
    # A dump that was written to a file would not be stripped.
    "$real" "$@" | /usr/bin/sed '/^\\\(un\)\{0,1\}restrict /d'
    ;;
esac
