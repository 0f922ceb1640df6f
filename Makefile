# The few verbs of the project. Each installs what it needs on a fresh Debian 12
# (as root, through tools/need); only Go itself must be there before.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
# The version that the binaries report: the tag, or the commit, "+dirty" if edited.
VERSION := $(shell git describe --tags --always --dirty=+dirty 2>/dev/null || echo unknown)

# -trimpath: no path of the building machine in the binaries.
# -buildvcs=false: VERSION says it already, also where git refuses to answer.
GOBUILD := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

# What the tests run as programs of their own, by Debian package.
TEST_PACKAGES := git iproute2 passt nftables iptables busybox-static mmdebstrap debian-archive-keyring jq strace umoci skopeo apparmor gcc libc6-dev libseccomp-dev e2fsprogs erofs-utils qemu-system-x86 kmod sqlite3 bind9-dnsutils musl-tools acl

.PHONY: help build install demo demo-full test test-full test-guest test-kvm guest-kernel runsc bench lint generate clean go

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# Debian 12 has Go 1.19, which cannot even fetch a newer toolchain.
go:
	@command -v $(GO) >/dev/null || { echo 'Go 1.26 or later is needed; the golang package of Debian 12 is too old. See https://go.dev/doc/install' >&2; exit 1; }
	@$(GO) version | awk '{ split(substr($$3, 3), v, "."); if (v[1] < 1 || (v[1] == 1 && v[2] + 0 < 26)) { print "Go 1.26 or later is needed, this is " $$3 ". See https://go.dev/doc/install" > "/dev/stderr"; exit 1 } }'

build: go ## static binaries in bin/
	@mkdir -p bin
	$(GOBUILD) -o bin/ ./cmd/...

install: build ## copy the binaries to $(DESTDIR)$(PREFIX)/bin
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 bin/bulkhead* $(DESTDIR)$(PREFIX)/bin
	[ ! -x bin/runsc ] || install -m 0755 bin/runsc $(DESTDIR)$(PREFIX)/bin

demo: build ## containers, then the same in virtual machines, and what each costs: a quarter of an hour
	@tools/need iproute2
	demo/run

demo-full: build ## the demo, PostgreSQL under pgbench behind both boundaries, and larger images
	@tools/need iproute2
	demo/run --full

test: build ## the quick tier: vet and all tests but the slow ones
	@tools/need $(TEST_PACKAGES)
	$(GO) vet ./...
	tests/run -short

test-full: build runsc ## every tier: slow tests, race detector, Debian's 6.1 kernel in a guest
	@tools/need $(TEST_PACKAGES)
	$(GO) vet ./...
	tests/run
	CGO_ENABLED=1 tests/run -short -race
	$(MAKE) test-guest

test-guest: build ## the tests under Debian's own kernel, cgroup v2 and AppArmor, in QEMU
	tests/guest/run

test-kvm: build ## virtual machines on /dev/kvm, in a QEMU guest that emulates the hardware
	tests/guest/run -kvm

guest-kernel: build ## a small kernel for guests, from Debian's source, stored as "small"
	@tools/need --newest linux-source-6.1
	@tools/need gcc make libc6-dev libelf-dev flex bison bc xz-utils binutils
	tools/guest-kernel

runsc: go ## gVisor's runsc for the boundary gvisor, from its Go module: three minutes
	tools/runsc/build

bench: build ## measure against the peers on this machine; PEERS=install fetches Debian's
	@tools/need busybox-static iproute2
	@if [ '$(PEERS)' = install ]; then tools/need runc crun bubblewrap docker.io podman iptables slirp4netns passt; fi
	$(GO) run ./bench $(BENCHFLAGS)

lint: go ## vet for amd64 and arm64, staticcheck, unparam, unconvert, misspell, shell scripts
	@tools/need git shellcheck
	tools/lint/run

generate: go ## remake generated files and fail if the commit lacks them
	$(GO) generate ./...
	$(GO) mod tidy
	git diff --exit-code

clean: ## remove bin/ and the cache of images and tools
	rm -rf bin .cache
