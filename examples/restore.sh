#!/bin/sh
# Restore a backup of backup.sh: restore.sh FOLDER/MOMENT [postgresql] [audit_events]; without names, both.
# First stop every unit of MyHealth: what is uploaded into a database that is being restored would be lost again.
# PostgreSQL's database must be there and empty (dropdb, createdb --owner); see README.md for the order, and what follows.
set -eu
[ $# -ge 1 ] || { echo "usage: restore.sh FOLDER/MOMENT [postgresql] [audit_events]" >&2; exit 64; }
python=${PYTHON:-/opt/myhealth/.venv/bin/python}
here=$(cd "$(dirname "$0")" && pwd)
backup=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- postgresql audit_events
(cd "$backup" && sha256sum --check --quiet SHA256SUMS)

for part in "$@"; do
    case $part in
    postgresql)
        found=$(psql "$MYHEALTH_DATABASE_URL" -Atqc "select count(*) from pg_tables where schemaname = 'public'")
        [ "$found" = 0 ] || { echo "The database of MYHEALTH_DATABASE_URL has tables; nothing was restored." >&2; exit 1; }
        # Roles that are there stay as they are. GRANTs need them.
        psql "$MYHEALTH_DATABASE_URL" --quiet --file="$backup/roles.sql" 2>/dev/null || true
        # All in one transaction: nobody sees tables without their rows, or without their rights.
        pg_restore --dbname="$MYHEALTH_DATABASE_URL" --single-transaction --no-owner "$backup/postgresql.dump"
        ;;
    audit_events) "$python" "$here/audit_events.py" restore "$backup/audit_events.bson.gz" ;;
    *) echo "there is no part $part" >&2; exit 2 ;;
    esac
done
