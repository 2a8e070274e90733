#!/bin/sh
# Stands for a service that only has to run: pyaleph, its API, kubo. Ends at once when it is told to.
trap 'exit 0' TERM INT
while :; do
    sleep 1000 &
    wait $!
done
