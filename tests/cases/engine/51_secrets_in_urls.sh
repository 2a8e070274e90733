#!/bin/bash
# Passwords in commands were shown by `snapshots --json` and `ls -l`: libpq takes them in a URL's query or with blanks round '=',
# web interfaces take keys and tokens there, rclone as --…-pass.
# Right: none of them is shown.
. "$(dirname "$0")/lib.sh"
mkdir "$T/bin"; for p in pg_dump psql curl rclone influx openssl; do printf '#!/bin/sh\necho x\n' >"$T/bin/$p"; chmod +x "$T/bin/$p"; done
PATH=$T/bin:$PATH
setup ice -q -r "$R" init
shown=
while read -r line; do
    setup ice -q -r "$R" backup --command db="$line"
    { ice -r "$R" snapshots --json | tail -1; ice -r "$R" ls -l latest; } | grep -q S3cret && { echo "shown: $line"; shown=x; }
done <<'X'
psql postgresql:///db?user=u&password=S3cret
pg_dump 'postgresql://h/db?password=S3cret&user=u'
pg_dump --dbname 'host=h password = S3cret'
curl 'https://h/dump?api_key=S3cret'
curl 'https://h/dump?access_token=S3cret&x=1'
curl 'https://h/dump?x=1&token=S3cret'
curl 'https://bucket/dump?X-Amz-Signature=S3cret'
curl -b session=S3cret https://h
rclone cat --sftp-pass S3cret r:x
influx backup -t S3cret -
openssl enc -aes-256-cbc -k S3cret
sh -c 'pg_dump db | openssl enc -aes-256-cbc -k S3cret'
X
[ -z "$shown" ] || wrong "secrets are shown"
right "all masked"
