#!/bin/sh
# Builds a release of the commit that is checked out, under the name VERSION, into dist/:
#
#   openaperture-VERSION-linux-ARCH.tar.gz           all services as static binaries, documents, examples
#   openaperture-VERSION-images-linux-ARCH.tar.gz    the container images, for docker load; only where docker is, and
#                                                    only for this machine's architecture
#   SHA256SUMS                                       of all of these
#
# The archives of binaries are reproducible: the same commit, VERSION and Go give the same bytes, on every machine. So
# they hold what is committed, and no time but the commit's.
set -eu
cd "$(dirname "$0")/../.."
ARCHITECTURES=${ARCHITECTURES:-amd64 arm64}
PACKAGES="./services/manager-api ./services/overseer ./services/deployer ./services/deployer-oa ./services/unitd"
IMAGES="manager-api overseer deployer deployer-oa"

stop() { echo "make release: $1" >&2; exit 1; }
case $VERSION in
'' | *[!A-Za-z0-9._-]* | [._-]*) stop "VERSION '$VERSION' cannot be part of a file's name and an image's tag" ;;
esac
[ -z "$(git status --porcelain)" ] || stop "there are changes that are not committed: a release is made of a commit"

umask 022
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
work=$(mktemp -d /var/tmp/openaperture-release-XXXXXX)
trap 'rm -rf "$work"' EXIT
rm -rf dist
mkdir dist

# compile ARCH DIRECTORY: the services, static. Without the state of git in them: VERSION says what they are.
compile() {
	mkdir -p "$2"
	CGO_ENABLED=0 GOOS=linux GOARCH=$1 go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$VERSION" -o "$2/" $PACKAGES
}

# licenses: those of every module that is compiled in.
licenses() {
	CGO_ENABLED=0 GOOS=linux go list -deps \
		-f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' $PACKAGES >"$work/modules"
	sort -u "$work/modules" | while read -r module version dir; do
		printf '\n==== %s %s ====\n\n' "$module" "$version"
		find "$dir" -maxdepth 1 -type f \( -iname 'licen[sc]e*' -o -iname 'copying*' -o -iname 'notice*' \) | sort >"$work/files"
		[ -s "$work/files" ] || stop "no license file in $module"
		while read -r file; do cat "$file"; done <"$work/files"
	done
}

licenses >"$work/THIRD_PARTY_LICENSES"
for arch in $ARCHITECTURES; do
	name=openaperture-$VERSION-linux-$arch
	mkdir "$work/$name"
	git archive HEAD README.md LICENSE CHANGELOG.md docs deploy/examples | tar -x -C "$work/$name"
	mv "$work/$name/deploy/examples" "$work/$name/examples"
	rmdir "$work/$name/deploy"
	cp "$work/THIRD_PARTY_LICENSES" "$work/$name/"
	mkdir "$work/$name/examples/config"
	for sample in services/*/*sample.yaml; do
		cp "$sample" "$work/$name/examples/config/$(basename "$(dirname "$sample")").yaml"
	done
	compile "$arch" "$work/$name/bin"
	tar -C "$work" --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
		--mtime="@$SOURCE_DATE_EPOCH" -cf "$work/archive" "$name"
	gzip -9nc "$work/archive" >"dist/$name.tar.gz"
	echo "dist/$name.tar.gz"
done

arch=$(go env GOHOSTARCH)
if docker info >/dev/null 2>&1; then
	compile "$arch" bin
	ENV_FILE=/dev/null SERVERS=no VERSION=$VERSION deploy/images/build.sh $IMAGES >/dev/null
	docker save -o "$work/images" $(printf "openaperture/%s:$VERSION " $IMAGES)
	gzip -9nc "$work/images" >"dist/openaperture-$VERSION-images-linux-$arch.tar.gz"
	echo "dist/openaperture-$VERSION-images-linux-$arch.tar.gz"
else
	echo "no images: docker does not answer"
fi
cd dist
sha256sum openaperture-* >SHA256SUMS
echo dist/SHA256SUMS
