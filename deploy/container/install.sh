#!/usr/bin/env bash
# Installs archsearch: "system" what the operating system lacks, "python PREFIX SOURCE" a virtual environment at PREFIX.
#
# TORCH_INDEX: an index of torch's wheels, beside the one that pip is configured with. PLUGINS: more to install, by name
# or folder. EXTRAS: extras of archsearch. Every version is a pin of constraints.txt.
set -euo pipefail

EXTRAS=${EXTRAS-login,postgres,metrics,kernels}
PIP_VERSION=25.3

system() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # gcc and Python's headers: Triton builds a launcher for each kernel where it runs.
  local packages=(ca-certificates gcc libc6-dev)
  command -v python3 >/dev/null || packages+=(python3 python3-venv python3-dev)
  apt-get install -y -qq --no-install-recommends "${packages[@]}"
  rm -rf /var/lib/apt/lists/*
}

python() {
  local prefix=$1 source=$2
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "archsearch needs Python 3.11 or newer, and python3 here is $(python3 --version)" >&2
    exit 1
  }
  python3 -m venv "$prefix"
  local pip=("$prefix/bin/python" -m pip --no-cache-dir --disable-pip-version-check)
  "${pip[@]}" install --quiet "pip==$PIP_VERSION"
  # torch first and by itself: its index has torch alone, in the build for the device
  "${pip[@]}" install --quiet -c "$source/constraints.txt" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
  "${pip[@]}" install --quiet -c "$source/constraints.txt" "$source${EXTRAS:+[$EXTRAS]}"
  local plugin
  for plugin in ${PLUGINS:-}; do
    "${pip[@]}" install --quiet -c "$source/constraints.txt" "$plugin"
  done
  "${pip[@]}" check
  "$prefix/bin/archsearch" plugins >/dev/null
}

case ${1:-} in
  system) system ;;
  python)
    [ $# -eq 3 ] || { echo "usage: install.sh python PREFIX SOURCE" >&2; exit 2; }
    python "$2" "$3"
    ;;
  *) echo "usage: install.sh system | install.sh python PREFIX SOURCE" >&2; exit 2 ;;
esac
