#!/bin/sh
# Build the guest agent: build.sh OUT. The same sources and the same Go give the same bytes, wherever they lie and whatever the host is.
set -eu
case $1 in /*) out=$1 ;; *) out=$PWD/$1 ;; esac
cd "$(dirname "$0")"
mkdir -p "$(dirname "$out")"
exec env GOOS=linux GOARCH=amd64 GOAMD64=v1 GOFLAGS= GOWORK=off CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -o "$out" ./cmd/agent
