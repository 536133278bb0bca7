#!/bin/sh
# Builds the images of the services named, all four if none is, as fallow/SERVICE:VERSION, and writes what each holds to
# .build/images/SERVICE.cdx.json. The environment may set
#   DOCKER           the engine's command (docker; podman serves too)
#   IMAGE_PREFIX     what stands before the service's name (fallow/)
#   BASE             another base image, with python3 and its venv, by tag or digest
#   BUILD_ARGUMENTS  more arguments of the build, such as --network=host
set -eu
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' libs/chassis/pyproject.toml)
[ $# -gt 0 ] || set -- order bidding settlement provider

if ! "$docker" version >/dev/null 2>&1; then
    echo "images: '$docker version' fails: start a container engine, or name its command in DOCKER" >&2
    exit 1
fi
mkdir -p .build/images
for service; do
    [ -d "services/$service" ] || { echo "images: there is no service $service" >&2; exit 2; }
    image="${IMAGE_PREFIX-fallow/}$service:$version"
    # shellcheck disable=SC2086
    "$docker" build --quiet --file deploy/images/Dockerfile --build-arg "SERVICE=$service" \
        ${BASE:+--build-arg "BASE=$BASE"} ${BUILD_ARGUMENTS:-} --tag "$image" . >/dev/null
    "$docker" run --rm --network none --entrypoint cat "$image" /opt/fallow/sbom.cdx.json \
        >".build/images/$service.cdx.json.new"
    mv ".build/images/$service.cdx.json.new" ".build/images/$service.cdx.json"
    echo "images: $image, holds what .build/images/$service.cdx.json lists"
done
