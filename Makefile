# `make` alone prints what there is. Everything runs on one machine with Go, git and make; deploy/local/install.sh adds
# the Debian packages of PostgreSQL and RabbitMQ where they are missing (as root, once).
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
SERVICES := manager-api overseer deployer deployer-oa unitd
IMAGES   := manager-api overseer deployer deployer-oa
MODULES  := $(shell go list -f '{{.Dir}}' -m)
LDFLAGS  := -s -w -X main.version=$(VERSION)
N        ?= 1
LOCAL    := go run ./deploy/local

.DEFAULT_GOAL := help
export SEED KILLS

.PHONY: help build test systemd-test lint tidy standalone up down demo e2e faults skew soak chaos bench images \
	release compose-up compose-down compose-test compose-config

help: ## Print this menu
	@awk -F ':.*?## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

build: ## Build every service into bin/, static and stamped with VERSION
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ $(addprefix ./services/,$(SERVICES))

test: ## Every suite of every module under -race, against private servers; totals on the last line
	@deploy/local/install.sh test
	@$(LOCAL) test

systemd-test: ## unitd's suite on systemd, and an upgrade through it, in containers with systemd as PID 1 (needs docker)
	@docker image inspect openaperture/systemd:12 >/dev/null 2>&1 || deploy/images/debian.sh openaperture/systemd:12 systemd,systemd-sysv,dbus
	go test -count=1 -race -tags systemd -timeout 15m ./services/unitd/internal/systemd
	go test -count=1 -race -tags systemd -timeout 15m ./pkg/deploy ./pkg/deploy/fleet -ginkgo.label-filter=systemd

lint: ## golangci-lint (v2.15.0) once per module, stopping at the first failure
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && golangci-lint run --allow-parallel-runners ./...) || exit 1; done

tidy: ## go mod tidy in every module
	@for m in $(MODULES); do (cd $$m && go mod tidy) || exit 1; done

standalone: ## Build every module by itself, without the workspace: its go.mod alone names what it needs
	@for m in $(MODULES); do echo "build $$m"; (cd $$m && GOWORK=off go build ./...) || exit 1; done

up: ## Start the whole suite on this machine, without containers; harmless when it runs already
	@deploy/local/install.sh up
	@$(LOCAL) up

down: ## Stop it and remove everything that it left, also of a failed soak, chaos or bench; one that runs is left alone
	@$(LOCAL) down

demo: ## Watch the suite upgrade itself, fail an upgrade and take it back; leaves the stack up
	@deploy/local/install.sh up
	@$(LOCAL) demo

e2e: ## The demo's story as a spec, N times from nothing (make e2e N=20), stopping at the first failure
	@deploy/local/install.sh e2e
	@$(LOCAL) e2e $(N)

faults: ## Bad versions of every service, servers that go away in mid-upgrade, what nobody can read, as specs on one stack
	@deploy/local/install.sh up
	@go test -v -count=1 -timeout=30m -tags=e2e ./deploy/local/faults -args -ginkgo.no-color $(ARGS)

skew: ## The release before this one (deploy/previous) beside this one, both ways, as specs on stacks that it has begun
	@deploy/local/install.sh up
	@go test -v -count=1 -timeout=45m -tags=e2e ./deploy/local/skew -args -ginkgo.no-color $(ARGS)

soak: ## N upgrades of everything in a row under load and faults, every BADth a bad version (SEED FAULTS EVERY TIME RESULTS)
	@deploy/local/install.sh up
	@$(LOCAL) soak

chaos: ## The same once, with kills alone (SEED=7 KILLS=60), then judge what is left
	@deploy/local/install.sh up
	@$(LOCAL) chaos

bench: ## Figures and ratios against bare baselines: heartbeats, upgrades, memory, start-up
	@deploy/local/install.sh up
	@$(LOCAL) bench

images: ## Build the container images, also those of PostgreSQL and RabbitMQ where they can't be pulled; writes .env
	CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ $(addprefix ./services/,$(IMAGES))
	@VERSION=$(VERSION) deploy/images/build.sh $(IMAGES)

release: ## Archives of all services for amd64 and arm64, the images where docker is, SHA256SUMS: into dist/
	@VERSION=$(VERSION) deploy/release/build.sh

compose-up: ## Start docker-compose.yml, register its exchange; prints image sizes, seconds until ready, memory
	@$(MAKE) --no-print-directory images
	@$(LOCAL) compose up

compose-down: ## Stop it and remove its containers, network, volumes and secrets; the images stay
	@$(LOCAL) compose down

compose-test: ## Bring docker-compose.yml up under another name, kill its servers, upgrade a unit of this host, take it down
	@$(MAKE) --no-print-directory images
	@deploy/local/install.sh up
	@go test -v -count=1 -timeout=10m -tags=compose ./deploy/local/compose -args -ginkgo.no-color -ginkgo.v $(ARGS)

compose-config: ## Check docker-compose.yml
	docker-compose -f docker-compose.yml config -q
