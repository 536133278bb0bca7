#!/bin/sh
# Runs every check of the workspace that needs no running service and no network, and says what failed.
#
# All checks run even when one fails, so that one run shows everything; the status is 1 if any failed.
set -u
cd "$(dirname "$0")/.."
bin=.venv/bin
linted="libs/chassis libs/receipts libs/sdl sdk stack services contracts tests tools conftest.py"
failed=

check() {
    name=$1
    shift
    printf '== %s\n' "$name"
    if ! "$@"; then
        failed="$failed $name"
        printf '!! %s failed\n' "$name"
    fi
}

migrations() {
    # shellcheck disable=SC2046
    set -- $(find libs services -path '*/migrations/*.sql' -not -path '*/.venv/*' | sort)
    [ $# -eq 0 ] || "$bin/squawk" --config .squawk.toml "$@"
}

buf_lint() {
    "$bin/python" tools/generate_proto.py --descriptors .build/fallow.binpb && "$bin/buf" lint .build/fallow.binpb
}

artifacts() {
    "$bin/python" contracts/compile.py --check
}

# shellcheck disable=SC2086
check ruff "$bin/ruff" check --quiet $linted
# shellcheck disable=SC2086
check format "$bin/ruff" format --check --quiet $linted
check mypy "$bin/mypy" --no-error-summary
check imports "$bin/lint-imports" --no-logo
check dependencies "$bin/python" tools/check_dependencies.py
check vulture "$bin/vulture"
check typos "$bin/typos" --force-exclude
check proto "$bin/python" tools/generate_proto.py --check
check buf buf_lint
check migrations migrations
check artifacts artifacts
check errors "$bin/python" tools/generate_errors.py --check

if [ -n "$failed" ]; then
    echo "lint: failed:$failed"
    exit 1
fi
echo "lint: all checks passed"
