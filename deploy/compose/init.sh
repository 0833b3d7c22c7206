#!/bin/sh
# Makes random secrets and the configurations that docker-compose.yml mounts, in deploy/compose/generated or the directory
# that GENERATED names (absolute). What is there stays. PROFILE chooses the durations: default or fast.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p "${GENERATED:-generated}"
cd "${GENERATED:-generated}"
chmod 700 . # it may have been there before
mkdir -p repos
chmod 755 repos

random() { od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }
# Containers run as another user and read their secrets as mounted: the files are open, the directory is not.
# A file is there whole or not at all.
keep() {
	[ -e "$1" ] || { cat >"$1.new" && [ -s "$1.new" ] && chmod 644 "$1.new" && mv "$1.new" "$1"; }
	[ -s "$1" ] || { echo "$(pwd)/$1 is empty: remove it and start this again" >&2; exit 1; }
}
hash() { printf 'sha256:'; tr -d '\n' <"$1" | sha256sum | cut -d' ' -f1; }

for secret in postgres_password rabbitmq_password admin_token service_token unitd_token; do random | keep $secret; done
echo "first $(head -c 32 /dev/urandom | base64)" | keep seal_keys
# Over the socket that the containers share.
printf 'postgres://openaperture:%s@/openaperture?host=/var/run/postgresql&sslmode=disable' "$(cat postgres_password)" | keep database_url
printf 'amqp://openaperture:%s@rabbitmq:5672/' "$(cat rabbitmq_password)" | keep amqp_url
keep rabbitmq.conf <<CONF
default_user = openaperture
default_pass = $(cat rabbitmq_password)
loopback_users = none
CONF
keep manager-api.yaml <<CONF
profile: ${PROFILE:-default}
listen: 0.0.0.0:8080
home_exchange: local
database_url_file: /run/secrets/database_url
amqp_url_file: /run/secrets/amqp_url
sealing_key_file: /run/secrets/seal_keys
tokens:
  - {name: admin, role: admin, hash: "$(hash admin_token)"}
  - {name: services, role: service, exchange_id: 1, hash: "$(hash service_token)"}
CONF
member() {
	cat <<CONF
profile: ${PROFILE:-default}
manager_url: http://manager-api:8080
manager_token_file: /run/secrets/service_token
exchange_id: 1
amqp_url_file: /run/secrets/amqp_url
CONF
}
member | keep member.yaml
keep executor.yaml <<CONF
$(member)
allow_local_repos: true
runtimes: {fleet: {token_file: /run/secrets/unitd_token}}
CONF
echo "the administrator's token is in $(pwd)/admin_token"
