#!/usr/bin/env bash
# Makes the secrets of compose.yaml in the folder secrets/, once: what is there is left as it is.
set -euo pipefail
cd "${1:-$(dirname "$0")/secrets}"
umask 077

random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
once() { [ -s "$1" ] || printf '%s' "$2" >"$1"; }

once ray_token "$(random)"
once postgres_password "$(random)"
once grafana_password "$(random)"
once oidc_secret "put the client secret of the OIDC provider here"
once cookie_secret "$(random | cut -c 1-32)" # oauth2-proxy wants 16, 24 or 32 bytes
for role in migrator writer reader; do
  once "${role}_password" "$(random)"
  once "${role}_pgpass" "postgres:5432:archsearch:archsearch_$role:$(cat "${role}_password")
"
done
once submitter_pgpass "$(cat reader_pgpass writer_pgpass)
" # for submit.yaml
once users.caddy "# one line a user: NAME HASH, where HASH is what \`caddy hash-password\` prints
"
# The users in containers are others than yours, and a secret is mounted as the file that it is: the folder keeps
# others of this machine out, and a container can read what is mounted into it.
chmod 0700 .
chmod 0444 -- *_password *_pgpass *_secret ray_token users.caddy
