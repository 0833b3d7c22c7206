#!/bin/sh
# Installs the Debian packages that the local stack and the suites need. What for is the argument:
#
#	up    the stack: PostgreSQL, RabbitMQ and git; where it is root, curl too, with which the README talks to the stack
#	e2e   the stack, and a spec that follows the README
#	test  every suite; the default
#
# Nothing happens where they are present. The distribution's own services are never started: a policy-rc.d that
# refuses and "create_main_cluster = false" are in place while dpkg runs, and what stood there before is put back. Nor
# are those that it brings started at the next boot.
set -eu

needed=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || needed="$needed postgresql"
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || needed="$needed rabbitmq-server"
command -v git >/dev/null 2>&1 || needed="$needed git"
curl="" gcc=""
command -v curl >/dev/null 2>&1 || curl=" curl ca-certificates"
command -v gcc >/dev/null 2>&1 || gcc=" gcc libc6-dev" # the race detector links with cgo
case "${1:-test}" in
up) [ "$(id -u)" != 0 ] || needed="$needed$curl" ;;
e2e) needed="$needed$curl" ;;
test) needed="$needed$curl$gcc" ;;
*)
	echo "usage: $0 [up|e2e|test]" >&2
	exit 2
	;;
esac
[ -n "$needed" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing packages:$needed" >&2
	echo "run this once as root: $0 ${1:-test}" >&2
	exit 1
fi

# unit_there says whether systemd would find a unit, also where it does not run.
unit_there() { [ -e "/usr/lib/systemd/system/$1" ] || [ -e "/lib/systemd/system/$1" ]; }
fresh=""
for unit in postgresql.service rabbitmq-server.service epmd.socket epmd.service; do
	unit_there "$unit" || fresh="$fresh $unit"
done

# leave_disabled keeps the services that came with the packages from being started at the next boot. What was there
# before is its owner's. systemctl needs no running systemd for that; a host with another init is left as it is.
leave_disabled() {
	command -v systemctl >/dev/null 2>&1 || return 0
	for unit in $fresh; do
		! unit_there "$unit" || systemctl --quiet disable "$unit" >/dev/null ||
			echo "$unit is enabled and could not be disabled: the next boot will start it" >&2
	done
}

policy=/usr/sbin/policy-rc.d
cluster=/etc/postgresql-common/createcluster.conf
saved=$(mktemp -d)
restore() {
	leave_disabled
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
echo "installing:$needed" >&2
apt-get -qq -o DPkg::Lock::Timeout=600 update >&2
# shellcheck disable=SC2086 # a list of words
apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold install --no-install-recommends $needed >&2
