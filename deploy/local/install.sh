#!/bin/sh
# Installs the Debian packages that the local stack and the suites need: PostgreSQL, RabbitMQ and git.
# Nothing happens where they are present. The distribution's own services are never started: a policy-rc.d that
# refuses and "create_main_cluster = false" are in place while dpkg runs, and what stood there before is put back.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="$missing rabbitmq-server"
command -v git >/dev/null 2>&1 || missing="$missing git"
command -v curl >/dev/null 2>&1 || missing="$missing curl ca-certificates" # the README talks to the stack with it
command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev" # the race detector links with cgo
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing packages:$missing" >&2
	echo "run this once as root: $0" >&2
	exit 1
fi

policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
saved=$(mktemp -d)
restore() {
	rm -f "$policy"
	[ ! -e "$saved/policy" ] || mv "$saved/policy" "$policy"
	if [ -e "$saved/cluster" ]; then cp -p "$saved/cluster" "$cluster"; elif [ -e "$saved/made" ]; then
		# dpkg keeps a file that it found: what the package would have brought is its commented default.
		sed -i 's/^create_main_cluster = false$/#create_main_cluster = true/' "$cluster"
	fi
	rm -rf "$saved"
}
trap restore EXIT
trap 'exit 130' INT TERM

[ ! -e "$policy" ] || mv "$policy" "$saved/policy"
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
if [ -e "$cluster" ]; then cp -p "$cluster" "$saved/cluster"; else : >"$saved/made"; fi
mkdir -p "$(dirname "$cluster")"
echo 'create_main_cluster = false' >>"$cluster"

export DEBIAN_FRONTEND=noninteractive
echo "installing:$missing" >&2
apt-get -qq -o DPkg::Lock::Timeout=600 update >&2
# shellcheck disable=SC2086 # a list of words
apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold install --no-install-recommends $missing >&2
