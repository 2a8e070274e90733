#!/usr/bin/env bash
# `copy` onto a repository of which packs are missing, or cut short (an fsck, a sync tool, a power cut of a USB box): what its index names
# counts as there. "1 snapshot copied, 1 there already", exit code 0; the copy cannot be restored. Again at each copy: what would heal it
# is in the source each time. The copy is the one that is needed one day.
# Right: as `backup` does: the packs are listed, what is missing counts as not there, is reported (exit code 4) and stored again; after that
# the newest copy restores.
. "$(dirname "$0")/lib.sh"
export ICECORE_STATE_DIR=$T/state ICECORE_TO_PASSPHRASE=secret
mkdir "$T/s"; for n in 1 2 3; do head -c 300000 /dev/urandom >"$T/s/$n"; done
R2=$T/usb
bad=
for how in missing "cut short"; do
    rm -rf "$R" "$R2" "$T/cache" "$T/state"
    setup ice -q -r "$R" init; setup ice -q -r "$R2" init
    setup ice -q -r "$R" backup "$T/s"
    setup ice -q -r "$R" copy --to "$R2"
    case $how in
        missing) find "$R2/packs" -type f -size +100k -delete ;;
        *) find "$R2/packs" -type f -size +100k -exec truncate -s 1000 {} + ;;
    esac
    echo "$how" >"$T/s/4"; setup ice -q -r "$R" backup "$T/s"
    ice -r "$R" copy --to "$R2" >"$T/out" 2>&1; rc=$?
    tail -1 "$T/out"
    rm -rf "$T/back"; ice -q -r "$R2" restore latest:s "$T/back" 2>/dev/null; back=$?
    [ $rc = 0 ] && { bad=x; echo "a pack is $how: copy ends with 0 and says no word, the copy restores with $back"; }
    [ $back = 0 ] || { bad=x; echo "a pack is $how: the newest copy is not whole after a copy (its exit code: $rc; the restore's: $back)"; }
done
[ -z "$bad" ] || wrong "copy relies on packs that are not there"
right "reported, and healed"
