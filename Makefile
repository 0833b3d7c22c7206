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

.PHONY: help build test systemd-test lint tidy standalone up down demo e2e chaos bench images compose-config

help: ## Print this menu
	@awk -F ':.*?## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

build: ## Build every service into bin/, static and stamped with VERSION
	CGO_ENABLED=0 go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ $(addprefix ./services/,$(SERVICES))

test: ## Every suite of every module under -race, against private servers; totals on the last line
	@deploy/local/install.sh
	@$(LOCAL) test

systemd-test: ## unitd's suite on systemd, and an upgrade through it, in containers with systemd as PID 1 (needs docker)
	@deploy/systemd/image.sh
	go test -race -tags systemd -timeout 15m ./services/unitd/internal/systemd
	go test -race -tags systemd -timeout 15m ./pkg/deploy ./pkg/deploy/fleet -ginkgo.label-filter=systemd

lint: ## golangci-lint (v2.15.0) once per module, stopping at the first failure
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && golangci-lint run ./...) || exit 1; done

tidy: ## go mod tidy in every module
	@for m in $(MODULES); do (cd $$m && go mod tidy) || exit 1; done

standalone: ## Build every module by itself, without the workspace, as an image build does
	@for m in $(MODULES); do echo "build $$m"; (cd $$m && GOWORK=off go build ./...) || exit 1; done

up: ## Start the whole suite on this machine, without containers; harmless when it runs already
	@deploy/local/install.sh
	@$(LOCAL) up

down: ## Stop it and remove everything that it left
	@$(LOCAL) down

demo: ## Watch the suite upgrade itself, fail an upgrade and take it back; leaves the stack up
	@deploy/local/install.sh
	@$(LOCAL) demo

e2e: ## The demo's story as a spec, N times from nothing (make e2e N=20), stopping at the first failure
	@deploy/local/install.sh
	@$(LOCAL) e2e $(N)

chaos: ## SIGKILL random services while the suite upgrades itself (SEED=7 KILLS=60), then judge what is left
	@deploy/local/install.sh
	@$(LOCAL) chaos

bench: ## Figures and ratios against bare baselines: heartbeats, upgrades, memory, start-up
	@deploy/local/install.sh
	@$(LOCAL) bench

images: ## Build the container images out of local static binaries, without a registry
	CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ $(addprefix ./services/,$(IMAGES))
	@for s in $(IMAGES); do docker build -q -f deploy/Dockerfile.scratch --build-arg SERVICE=$$s -t openaperture/$$s:$(VERSION) bin || exit 1; done

compose-config: ## Check docker-compose.yml
	docker-compose -f docker-compose.yml config -q
