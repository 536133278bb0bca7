#!/bin/sh
# Runs Helm at the version below, built by Go into .build/bin the first time; the charts are for it and later ones.
set -eu
version=v3.22.0
cd "$(dirname "$0")/.."
helm=".build/bin/helm-$version"
if [ ! -x "$helm" ]; then
    command -v go >/dev/null 2>&1 || { echo "helm: Go builds it, and there is no go" >&2; exit 1; }
    mkdir -p .build/bin
    draft=$(mktemp -d .build/bin/draft.XXXXXX)
    trap 'rm -rf "$draft"' EXIT
    GOBIN="$PWD/$draft" go install "helm.sh/helm/v3/cmd/helm@$version" >&2
    mv "$draft/helm" "$helm"
fi
export HELM_CACHE_HOME="$PWD/.build/helm" HELM_CONFIG_HOME="$PWD/.build/helm" HELM_DATA_HOME="$PWD/.build/helm"
exec "$helm" "$@"
