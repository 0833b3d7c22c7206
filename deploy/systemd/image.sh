#!/bin/sh
# Builds the image openaperture/systemd:12 (Debian 12 with systemd as PID 1), without a registry, unless it exists.
set -eu
image=openaperture/systemd:12
if docker image inspect "$image" >/dev/null 2>&1; then
	exit 0
fi
if ! command -v mmdebstrap >/dev/null; then
	apt-get install -y -q --no-install-recommends mmdebstrap
fi
sources=/etc/apt/sources.list.d/debian.sources
[ -e "$sources" ] || sources=/etc/apt/sources.list
tar=$(mktemp)
trap 'rm -f "$tar"' EXIT
setsid -w mmdebstrap --quiet --variant=minbase --mode=root --include=systemd,systemd-sysv,dbus \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt=force-unsafe-io --aptopt='APT::Install-Recommends "0"' --aptopt='Acquire::Languages "none"' \
	bookworm - "$sources" >"$tar"
docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" <"$tar" >/dev/null
