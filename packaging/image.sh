#!/bin/sh
# Builds the container image and names it $1, or stsmap: with podman, or what CONTAINER_ENGINE names, such as docker.
# The trust anchors are those of this machine, or CA_BUNDLE.
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go}
engine=${CONTAINER_ENGINE:-podman}
bundle=${CA_BUNDLE:-/etc/ssl/certs/ca-certificates.crt}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022

tree=$work/tree
CGO_ENABLED=0 GOOS=linux "$GO" build -trimpath -buildvcs=auto -ldflags '-s -w' -o "$tree/usr/bin/stsmap" ./cmd/stsmap
install -Dm644 "$bundle" "$tree/etc/ssl/certs/ca-certificates.crt"
install -Dm644 LICENSE "$tree/usr/share/doc/stsmap/LICENSE"
GO=$GO packaging/licenses.sh >"$tree/usr/share/doc/stsmap/licenses"
mkdir "$work/state"

# Docker's format, which has health checks; docker knows no other.
format=
case $engine in *podman) format=--format=docker ;; esac
# shellcheck disable=SC2086 # one word or none
"$engine" build $format --quiet --tag "${1:-stsmap}" --file packaging/Containerfile "$work"
