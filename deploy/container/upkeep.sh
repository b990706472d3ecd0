#!/usr/bin/env bash
# What a service needs from time to time: "backup" writes the database to a new file, "prune" removes searches that nobody
# needs any more. "daily backup" and "daily prune" do it once a day, for as long as they run.
#
# BACKUPS: the folder of backups. KEEP: how many stay. PRUNE_OLDER_THAN: how long ago an archived search must have ended,
# as in 1y; without it nothing is removed. AT: the time of day, UTC. RETRY: seconds to the next try after a failure.
set -euo pipefail

BACKUPS=${BACKUPS:-/backups}
KEEP=${KEEP:-30}
AT=${AT:-03:17}
RETRY=${RETRY:-600}

usage() {
  echo "usage: upkeep.sh [daily] backup | upkeep.sh [daily] prune" >&2
  exit 2
}

backup() {
  local file held
  [[ $KEEP =~ ^[1-9][0-9]*$ ]] || { echo "KEEP=$KEEP: say how many backups stay, 1 at least" >&2; exit 2; }
  file="$BACKUPS/archsearch-$(date -u +%Y%m%dT%H%M%SZ).db"
  archsearch db backup "$file" # it is whole, or it is not there
  mapfile -t held < <(find "$BACKUPS" -maxdepth 1 -name 'archsearch-*Z.db' | sort)
  while ((${#held[@]} > KEEP)); do
    rm -- "${held[0]}"
    held=("${held[@]:1}")
  done
}

prune() {
  if [ -z "${PRUNE_OLDER_THAN:-}" ]; then
    echo "PRUNE_OLDER_THAN is not set: nothing is removed"
    return
  fi
  archsearch prune --older-than "$PRUNE_OLDER_THAN" --everyone --yes
}

fresh() { # whether there is a backup of the last day
  [ -n "$(find "$BACKUPS" -maxdepth 1 -name 'archsearch-*Z.db' -mmin -1440 | head -n 1)" ]
}

pause() { # until the time of day
  local now at
  now=$(date -u +%s)
  at=$(date -u -d "$AT" +%s)
  if ((at <= now)); then at=$((at + 86400)); fi
  sleep $((at - now))
}

daily() {
  if [ "$1" = prune ] || fresh; then pause; fi
  while :; do
    if bash "$0" "$1"; then
      pause
    else
      echo "$1 failed: it is tried again in $RETRY s" >&2
      sleep "$RETRY"
    fi
  done
}

case "$#:${1:-}:${2:-}" in
  1:backup: | 1:prune:) "$1" ;;
  2:daily:backup | 2:daily:prune) daily "$2" ;;
  *) usage ;;
esac
