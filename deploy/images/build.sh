#!/bin/sh
# Builds openaperture/<service>:VERSION for each service named, out of the static binaries in bin/, and finds or builds
# what else docker-compose.yml needs, unless SERVERS is no. Which images those are is written into ENV_FILE (.env, which
# docker-compose reads).
#
# If the official images of PostgreSQL and RabbitMQ cannot be pulled, they are made of Debian's packages. mmdebstrap makes
# one base, which is kept: docker rmi openaperture/debian:12 makes the next run build it anew. The executors' git is of
# this base too.
set -eu
cd "$(dirname "$0")/../.."
BASE=openaperture/debian:12
POSTGRES=postgres:15-bookworm
RABBITMQ=rabbitmq:3.13-management

# BuildKit leaves no untagged images; an engine of Debian 12 has it without the plugin that newer clients want.
DOCKER=docker
for each in docker /usr/bin/docker; do
	if probe=$(echo 'FROM scratch
LABEL probe=1' | DOCKER_BUILDKIT=1 $each build -q - 2>/dev/null); then
		docker rmi "$probe" >/dev/null
		DOCKER=$each
		export DOCKER_BUILDKIT=1
		break
	fi
done

# build <tag> <option or context...>
build() {
	tag=$1
	shift
	$DOCKER build -q -t "$tag" --build-arg BASE=$BASE "$@" >/dev/null
	echo "$tag"
}

have() { docker image inspect "$1" >/dev/null 2>&1; }
obtain() { have "$1" || timeout 300 docker pull -q "$1" >/dev/null 2>&1; }

own_cluster='mkdir -p "$1/etc/postgresql-common" &&
	echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"'
without_llvm='cd "$1/usr/lib" && rm -rf x86_64-linux-gnu/libLLVM* postgresql/15/lib/bitcode postgresql/15/lib/llvmjit*'
have $BASE || deploy/images/debian.sh $BASE postgresql-15,rabbitmq-server,git,openssh-client,ca-certificates \
	--essential-hook="$own_cluster" --customize-hook="$without_llvm"
if [ "${SERVERS:-yes}" = yes ] && { ! obtain $POSTGRES || ! obtain $RABBITMQ; }; then
	POSTGRES=openaperture/postgres:15 RABBITMQ=openaperture/rabbitmq:3
	build $POSTGRES -f deploy/images/postgres.Dockerfile deploy/images
	build $RABBITMQ -f deploy/images/rabbitmq.Dockerfile deploy/images
fi
for service; do
	case $service in deployer*) stage=executor ;; *) stage=service ;; esac
	build "openaperture/$service:$VERSION" -f deploy/Dockerfile --target $stage --build-arg COMPILE=true \
		--build-arg "SERVICE=$service" --build-arg "VERSION=$VERSION" .
done
printf 'COMPOSE_PROJECT_NAME=openaperture\nVERSION=%s\nPOSTGRES_IMAGE=%s\nRABBITMQ_IMAGE=%s\n' \
	"$VERSION" $POSTGRES $RABBITMQ >"${ENV_FILE:-.env}"
