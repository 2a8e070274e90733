#!/usr/bin/env bash
# A dump command fails and repeats its address on standard error ("could not connect to postgres://u:secret@h"), as libpq programs, curl and
# mongodump do. The end of it stands in the error ("stderr: …"), in the JSON, and in ICECORE_ERROR, which on_failure mails. The command's
# own words are masked beside it.
# Right: masked by the same rules, and every secret that was masked in the command's words is masked wherever it appears.
. "$(dirname "$0")/lib.sh"
cat >"$T/dump" <<'X'
#!/bin/sh
echo "could not connect to postgres://u:S3cret@h/db" >&2
echo "the password S3cret was rejected; PGPASSWORD=S3cret" >&2
exit 1
X
printf '#!/bin/sh\necho "$ICECORE_ERROR" >"%s/mail"\n' "$T" >"$T/mailer"; chmod +x "$T/dump" "$T/mailer"
cat >"$T/c.toml" <<X
repository = "$R"
[[source]]
name = "db"
kind = "command"
command = "$T/dump --password=S3cret"
[hooks]
on_failure = "$T/mailer"
X
setup ice -q --config "$T/c.toml" init
ice --config "$T/c.toml" --json backup >"$T/json" 2>"$T/text"; rc=$?
[ $rc = 1 ] && [ -s "$T/mail" ] || cannot "no failure (exit code $rc)"
shown=
for f in json text mail; do grep -q S3cret "$T/$f" && { shown="$shown $f"; grep -m1 S3cret "$T/$f"; }; done
[ -z "$shown" ] || wrong "the password is shown in:$shown"
right "masked"
