#!/bin/sh
# Back up MyHealth: backup.sh FOLDER
# Writes FOLDER/MOMENT with the roles, PostgreSQL (everything), MongoDB's audit events (who opened what) and checksums.
# Nothing has to be stopped. MYHEALTH_DATABASE_URL is the tables' owner's, MYHEALTH_MONGO_URL that of a user who may read
# audit_events; PYTHON is the Python of MyHealth. pg_dump must be of the server's version, or newer.
# Not in it, on purpose: /etc/myhealth with the passwords and the secret key. Keep these apart from the data.
set -eu
[ $# -eq 1 ] || { echo "usage: backup.sh FOLDER" >&2; exit 64; }
umask 077
python=${PYTHON:-/opt/myhealth/.venv/bin/python}
here=$(cd "$(dirname "$0")" && pwd)
target=$1/$(date -u +%Y-%m-%dT%H%M%SZ)
mkdir -p "$target.part"
cd "$target.part"

# A superuser's dump would have the roles' passwords too; without them, set new ones after a restore into a new cluster.
pg_dumpall --dbname="$MYHEALTH_DATABASE_URL" --roles-only --no-role-passwords --file=roles.sql
pg_dump --dbname="$MYHEALTH_DATABASE_URL" --format=custom --lock-wait-timeout=60s --file=postgresql.dump
"$python" "$here/audit_events.py" dump audit_events.bson.gz
pg_restore --list postgresql.dump > /dev/null
sha256sum roles.sql postgresql.dump audit_events.bson.gz > SHA256SUMS

# Only a whole backup has a name without .part.
cd / && sync && mv "$target.part" "$target"
echo "$target"
