#!/usr/bin/env bash
# Starts a part of the service: head, worker, or any command. Before that, secrets that were mounted are copied to files
# which this user alone can read, as Ray and libpq ask: a mount keeps the owner and mode that it has on the host.
set -euo pipefail

PRIVATE=${PRIVATE:-/run/archsearch}
SECRETS=${SECRETS:-/run/secrets}

private() { # private NAME VARIABLE: the mounted secret as a file of our own, named in VARIABLE
  [ -r "$SECRETS/$1" ] || return 0
  (umask 077 && cat "$SECRETS/$1" >"$PRIVATE/$1")
  export "$2=$PRIVATE/$1"
}

# The address of this node in the network that the cluster shares: of several networks, the one that NODE_NAME is in.
address() { getent ahostsv4 "${NODE_NAME:-$(hostname)}" | awk 'NR == 1 { print $1 }'; }

private ray_token RAY_AUTH_TOKEN_PATH
private pgpass PGPASSFILE
if [ -n "${RAY_AUTH_TOKEN_PATH:-}" ]; then export RAY_AUTH_MODE=token; fi
case ${RAY_AUTH_MODE:-} in # by any other word Ray asks nobody for a token, and says nothing
  '' | token | disabled) ;;
  *) echo "RAY_AUTH_MODE is \"$RAY_AUTH_MODE\": set it to token, or to disabled" >&2 && exit 1 ;;
esac

case ${1:-} in
  head)
    : "${RAY_AUTH_MODE:?a head without a token runs code for whoever reaches it: mount the secret ray_token}"
    # no CPUs: trials run on workers, the drivers of searches here
    exec ray start --head --block --disable-usage-stats --num-cpus "${HEAD_CPUS:-0}" \
      --node-ip-address "$(address)" --port 6379 --dashboard-host 0.0.0.0 --dashboard-port 8265
    ;;
  worker)
    : "${RAY_AUTH_MODE:?the cluster asks for its token: mount the secret ray_token}"
    exec ray start --block --disable-usage-stats --node-ip-address "$(address)" \
      --address "${HEAD_ADDRESS:-head:6379}"
    ;;
  *) exec "$@" ;;
esac
