#!/usr/bin/env bash
# PostgreSQL's first start: the three roles of ../postgres/roles.sql, with the passwords that were mounted.
set -euo pipefail

psql -v ON_ERROR_STOP=1 --username postgres --dbname archsearch --file /roles/roles.sql
for role in migrator writer reader; do
  # by a variable of psql's own, which quotes it, from stdin: nothing of it is in an argument
  psql -v ON_ERROR_STOP=1 --quiet --username postgres --dbname archsearch <<SQL
\\set password \`cat /run/secrets/${role}_password\`
ALTER ROLE archsearch_$role LOGIN PASSWORD :'password';
SQL
done
