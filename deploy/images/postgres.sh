#!/bin/sh
# Makes the cluster once, with a password for every network connection, and becomes the server. The directory is made
# beside and renamed, so that a first start that is killed is begun again.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	fresh=$PGDATA/fresh
	rm -rf "$fresh"
	initdb -D "$fresh" -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" -A scram-sha-256 --auth-local=scram-sha-256 -E UTF8 --locale=C.UTF-8 >/dev/null
	echo 'host all all all scram-sha-256' >>"$fresh/pg_hba.conf"
	echo "CREATE DATABASE \"$POSTGRES_DB\";" | postgres --single -D "$fresh" postgres >/dev/null
	mv "$fresh/PG_VERSION" "$fresh/PG_VERSION.last" # what says that the cluster is whole moves last
	for each in "$fresh"/*; do [ "$each" = "$fresh/PG_VERSION.last" ] || { rm -rf "$PGDATA/$(basename "$each")"; mv "$each" "$PGDATA/"; }; done
	mv "$fresh/PG_VERSION.last" "$PGDATA/PG_VERSION"
	rmdir "$fresh"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
