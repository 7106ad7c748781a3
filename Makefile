# SPDX-License-Identifier: Apache-2.0

PREFIX  ?= /usr
DESTDIR ?=
GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# What is built depends neither on where, nor on how the source came there; main.version has the commit.
GOFLAGS_BUILD := -trimpath -buildvcs=false -ldflags '$(LDFLAGS) -X main.version=$(VERSION)'

# Where the programs are built.
BIN ?= bin

# What `make run` serves, and where.
DISK   ?= busybox.img
TARGET ?= iqn.2015-02.com.stu31:t1
LISTEN ?= 127.0.0.1:3260

# Upgrades in each test of `make torture`; reloads and kills under upgraded.
UPGRADES ?= 250
ROUNDS   ?= 100

# How long each fuzz test runs in `make fuzz`.
FUZZTIME ?= 1m

# More flags of the benchmark, as -peer NAME=iscsi://HOST:PORT/TARGET/LUN.
BENCH ?=

# Power cuts in lab-power; without a number as many as the suite does by itself.
CUTS ?=

# Flags of the lab's command, such as -short.
LABFLAGS ?=

# What `make quick` runs the tests of: what differs from this commit.
SINCE ?= HEAD

.PHONY: help build run quick test gate check fuzz torture bench bench-quick lab lab-systemd lab-initiator lab-xen lab-migrate lab-start lab-power lab-control install uninstall packages image release clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the programs into bin/
	$(GO) build $(GOFLAGS_BUILD) -o $(BIN)/ ./cmd/...

run: build ## serve busybox.img on 127.0.0.1:3260 until Ctrl-C (DISK=, TARGET=, LISTEN=)
	@test/scripts/run.sh "$(DISK)" "$(TARGET)" "$(LISTEN)"

quick: ## after each edit: build, vet, tests of what differs from SINCE=HEAD, a login; 90 s
	@test/scripts/deps.sh quick
	@$(GO) run ./test/cmd/gate -since "$(SINCE)" quick

test: ## every check, unit tests with the race detector, real initiators; 10 minutes
	@test/scripts/deps.sh test
	@$(GO) run ./test/cmd/gate test

gate: ## the rest: fuzzing, conformance by every path, torture, as root the lab; about 35 minutes
	@test/scripts/deps.sh test
	@if [ "$$(id -u)" -eq 0 ]; then test/scripts/deps.sh lab; fi
	@$(GO) run ./test/cmd/gate long

check: ## gofmt, go vet, staticcheck, govulncheck
	@$(GO) run ./test/cmd/gate check

fuzz: ## each fuzz test for FUZZTIME=1m, and whether a planted fault is found
	@$(GO) run ./test/cmd/gate -fuzztime $(FUZZTIME) fuzz

torture: ## a thousand upgrades under real clients, in about 15 minutes (UPGRADES=)
	@test/scripts/deps.sh test
	$(GO) test -count=1 -v -timeout 40m ./test/upgrade -upgrades $(UPGRADES)
	$(GO) test -count=1 -v -timeout 10m -run TestNobodyIsRefused ./cmd/upgraded -rounds $(ROUNDS)

bench: ## compare with tgt, istgt and gotgt, side by side, in under 25 minutes (BENCH=)
	@test/scripts/deps.sh bench
	@$(GO) run ./bench $(BENCH)

bench-quick: ## the same comparison in under 3 minutes
	@test/scripts/deps.sh bench
	@$(GO) run ./bench -quick $(BENCH)

lab: ## the next six, one after the other
	@test/scripts/deps.sh lab
	@$(GO) run ./test/cmd/lab $(LABFLAGS) $(if $(CUTS),-cuts $(CUTS)) systemd initiator xen migrate start power

lab-systemd: ## gotgtd as a service of systemd, in an emulated machine; as root
lab-initiator: ## the Linux kernel's initiator while gotgtd is upgraded; as root
lab-xen: ## a guest moves between two Xen hosts while its disk's target is upgraded; as root
lab-migrate: ## from tgt to gotgtd, with identities that stay; as root
lab-start: ## docs/getting-started.md, as it is written, on a fresh machine; as root
lab-power: ## whether power cuts lose what was promised (CUTS=200); as root
lab-control: ## whether the checks of lab-initiator see it when tgt is restarted instead; as root
lab-systemd lab-initiator lab-xen lab-migrate lab-start lab-power lab-control:
	@test/scripts/deps.sh lab
	@$(GO) run ./test/cmd/lab $(LABFLAGS) $(if $(CUTS),-cuts $(CUTS)) $(@:lab-%=%)

install: build ## install under DESTDIR and PREFIX
	@test/scripts/install.sh "$(DESTDIR)" "$(PREFIX)" "$(BIN)"

uninstall: ## remove what install has put under DESTDIR and PREFIX; configuration and disks stay
	@test/scripts/uninstall.sh "$(DESTDIR)" "$(PREFIX)"

packages: ## build/packages: .deb, .rpm and their checksums
	@packaging/build.sh "$(VERSION)" build/packages

image: ## build/image: a container image, as an OCI layout and for docker load; no engine needed
	@packaging/image.sh "$(VERSION)" build/image

release: ## build/release: packages, image, source, SBOM, notes, checksums of a tag (docs/releasing.md)
	@packaging/release.sh "$(VERSION)" build/release

clean: ## remove what was built and measured, and the demonstration disk
	rm -rf bin build busybox.img
