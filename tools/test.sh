#!/bin/sh
# Runs the whole ladder: `tools/test.sh WORKERS [pytest's arguments]`. Results stand in .build/tests.xml.
set -eu
cd "$(dirname "$0")/.."
workers=$1
shift
# gRPC logs every connection that a killed server leaves behind; the tests look at errors themselves.
export GRPC_VERBOSITY="${GRPC_VERBOSITY:-ERROR}"
mkdir -p .build
rm -f .build/tests.xml
exec .venv/bin/pytest tests -n "$workers" --maxprocesses=4 --dist loadfile --junitxml=.build/tests.xml "$@"
