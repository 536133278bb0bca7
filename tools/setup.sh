#!/bin/sh
# Makes .venv hold exactly what constraints.txt pins, and the distributions of this repository, editable.
#
# It does nothing, and needs no network, when a stamp in .venv says that the same inputs were installed
# already. The inputs are constraints.txt and every distribution's pyproject.toml.
set -eu
cd "$(dirname "$0")/.."

distributions="libs/api libs/chassis libs/receipts libs/sdl sdk stack services/bidding services/order services/provider services/settlement"
venv=.venv
stamp="$venv/.fallow-installed"

suits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

inputs() {
    pwd
    cat tools/setup.sh constraints.txt
    for distribution in $distributions; do cat "$distribution/pyproject.toml"; done
}

# Two at once would install into the same folder: the second waits, and then finds it done.
if [ -z "${FALLOW_SETUP_LOCKED:-}" ] && command -v flock >/dev/null 2>&1; then
    mkdir -p .build
    FALLOW_SETUP_LOCKED=1 exec flock .build/setup.lock sh tools/setup.sh
fi

wanted=$(inputs | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && suits "$venv/bin/python"; then
    exit 0
fi

if ! suits "$venv/bin/python"; then
    python=
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3 python; do
        if [ -n "$candidate" ] && suits "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "setup: Python 3.11, 3.12 or 3.13 is needed; set PYTHON to its path" >&2
        exit 1
    fi
    echo "setup: a new $venv with $("$python" -V)"
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian's python3 without python3-venv has no ensurepip; a pip outside can still fill the folder.
        rm -rf "$venv"
        "$python" -m venv --without-pip "$venv"
        if ! "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check pip; then
            rm -rf "$venv"
            echo "setup: $python has neither ensurepip nor pip; install python3-venv" >&2
            exit 1
        fi
    fi
fi

echo "setup: installing the pinned packages"
rm -f "$stamp"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r constraints.txt
echo "setup: installing the distributions of this repository"
set --
for distribution in $distributions; do set -- "$@" -e "$distribution"; done
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation "$@"
echo "$wanted" >"$stamp"
echo "setup: done"
