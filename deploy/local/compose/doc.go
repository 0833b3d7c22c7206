// Package compose holds the specs of docker-compose.yml: the whole of it, out of locally built images. It takes minutes
// and docker, so that it stands behind the build tag compose: `make compose-test`.
package compose
