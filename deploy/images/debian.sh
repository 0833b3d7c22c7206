#!/bin/sh
# debian.sh <image> <packages> [option of mmdebstrap...] makes an image of Debian 12 out of the packages that this machine's
# own sources offer, without a registry. Packages are separated by commas.
set -eu
image=$1 packages=$2
shift 2
if ! command -v mmdebstrap >/dev/null; then
	[ "$(id -u)" = 0 ] || { echo "missing: mmdebstrap (apt-get install mmdebstrap)" >&2; exit 1; }
	apt-get -qq -o DPkg::Lock::Timeout=600 update >&2
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=600 install --no-install-recommends mmdebstrap >/dev/null
fi
sources=/etc/apt/sources.list.d/debian.sources
[ -e $sources ] || sources=/etc/apt/sources.list
[ "$(id -u)" = 0 ] && mode=root || mode=unshare
work=$(mktemp -d /var/tmp/openaperture-base-XXXXXX)
trap 'rm -rf "$work"' EXIT
# A session of its own: mmdebstrap ends its process group when it is done.
TMPDIR=$work setsid -w mmdebstrap --quiet --variant=minbase --mode=$mode --include="$packages" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt=force-unsafe-io --aptopt='APT::Install-Recommends "0"' --aptopt='Acquire::Languages "none"' "$@" \
	bookworm "$work/base.tar" $sources
docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$work/base.tar" "$image" >/dev/null
