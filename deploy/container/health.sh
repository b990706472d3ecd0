#!/usr/bin/env bash
# Whether the part that PART names works: a node of Ray by its agent, the dashboard by Streamlit's own answer, backups by
# one that is younger than 26 hours.
set -euo pipefail

case ${PART:-} in
  node) url=http://127.0.0.1:52365/api/local_raylet_healthz ;;
  dashboard) url=http://127.0.0.1:8501/_stcore/health ;;
  backup) exec grep -q . < <(find "${BACKUPS:-/backups}" -maxdepth 1 -name 'archsearch-*Z.db' -mmin -1560) ;;
  *) exit 0 ;; # a command: it is there, or it is not
esac
exec python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5).close()' "$url"
