# GNU make, POSIX sh. `make help` lists the targets. CONTRIBUTING.md and docs/TESTING.md describe
# their variables.

PREFIX          ?= /usr
LIBDIR          ?= $(PREFIX)/lib
CARGO           ?= cargo
CARGOFLAGS      ?= --locked
BPF              = 1
DEBUG            = 0
TESTS            = $(or $(filter-out test,$(@:test-%=%)),fast)
KERNELS          = $(if $(filter %-few,$@),few,all)
ARCH             = aarch64
FUZZ             = sched_debug
TIME             = 60

NO_BPF          := $(filter 0,$(BPF))
FEATURES         = $(if $(NO_BPF),--no-default-features)
STATIC_FEATURES  = $(if $(NO_BPF),--no-default-features,--features vendored)
STAT_BIN         = $(if $(NO_BPF),,--bin stallstat)
BUILD            = $(if $(filter 1,$(DEBUG)),debug,release)
PROFILE          = $(if $(filter 1,$(DEBUG)),,--release)
BINARY           = target/$(BUILD)/stalld
STAT             = $(if $(NO_BPF),none,$(dir $(BINARY))stallstat)
LIBRARY          = target/lib/libstalld.pc
STATIC           = target/static/stalld
DIST             = target/packages
TOOLS            = rust$(if $(NO_BPF),,+bpf)
STATIC_TOOLS     = rust+$(if $(NO_BPF),libc,static)

SETUP = sh packaging/setup.sh
SH    = CARGO="$(CARGO) $(CARGOFLAGS)" sh
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
BENCH = $(SUDO) env PATH="$(PATH)" PEER="$(PEER)" $(CARGO) bench $(CARGOFLAGS) $(FEATURES) --bench bench --

# CONTRIBUTING.md and docs/TESTING.md name paths below target, so builds go there, even if the
# environment sets another.
export CARGO_TARGET_DIR = $(CURDIR)/target
ifeq ($(CARGO),cargo)
export PATH := $(shell $(SETUP) --cargo | sed 's/.$$/&:/')$(PATH)
endif

# All targets that are in lower case at the beginning of a line.
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*/\1/p' Makefile)

all: needs-$(TOOLS) ## build target/release/stalld and stallstat; DEBUG=1: in target/debug; BPF=0: without libbpf
	$(CARGO) build $(CARGOFLAGS) $(PROFILE) $(FEATURES) --bin stalld $(STAT_BIN)
stalld: all

# needs-rust+bpf fails if a tool of these parts of packaging/setup.sh is missing.
needs-%:
	@$(SETUP) --check $(subst +, ,$*)
setup: ## install what building needs, after printing it; PARTS=all, or PARTS="test lint", for other targets, too
	@$(SETUP) $(subst +, ,$(TOOLS)) lib $(PARTS)

# The setup may install another cargo, so a make of its own continues.
demo: ## install what is missing, build, starve a task on the last CPU, show stalld rescue it
	@sh tests/demo.sh --check
	@$(SETUP) --root $(subst +, ,$(TOOLS))
	@$(MAKE) --no-print-directory demo-run
demo-run: all
	$(CARGO) build $(CARGOFLAGS) $(PROFILE) $(FEATURES) --example starve
	$(SUDO) sh tests/demo.sh $(BINARY) target/$(BUILD)/examples/starve

test: ## install what is missing, and run the tests; as root or by sudo, they starve tasks on the last CPU
test-long: ## the same with the tests that take minutes: valgrind, faults, ten million simulated steps
test-adversary: ## run attacks by a user without privileges on stalld; as root or by sudo, in ten minutes
test-mutants: ## revert each fix of an attack in turn, and check that its test fails
test test-long test-adversary test-mutants:
	@$(SETUP) --root $(subst +, ,$(TOOLS)) lib test
	@$(MAKE) --no-print-directory test-run TESTS=$(TESTS)
test-run: lib
	CARGO="$(CARGO)" FEATURES="$(CARGOFLAGS) $(FEATURES)" sh tests/run.sh $(TESTS) $(TESTARGS)
tests: needs-$(TOOLS) ## build the tests
	$(CARGO) test $(CARGOFLAGS) --workspace $(FEATURES) --no-run

test-vm: ## boot other kernels in emulation, and test there: KERNELS="6.1-rt 6.12", or KERNEL=FILE
test-vm-few: ## the same with few of them, in some minutes
test-vm test-vm-few: needs-$(STATIC_TOOLS)
	$(SH) packaging/static.sh $(STATIC) $(STATIC_FEATURES) $(STAT_BIN) --example starve --example attack
	$(SH) packaging/static.sh $(STATIC)-nobpf --no-default-features
	sh tests/vm/run.sh $(STATIC) $(if $(KERNEL),$(abspath $(KERNEL)),$(KERNELS))
test-vm-fetch: ## check that Debian still has what the VM tests take from it, and download it (FORCE=1: again)
	sh tests/vm/fetch.sh --all $(if $(FORCE),--force)
test-service: deb ## boot a Debian with the package, in emulation, and check its service: SERVICE_KERNELS="6.1"
	$(SUDO) sh tests/vm/service.sh $(DIST)/stalld_[0-9]*.deb $(SERVICE_KERNELS)
test-fresh: ## run the README's commands on bare Debian systems, as root: ROOTS="debian12 debian13-user", or ROOTS=ci
	$(SUDO) env KEEP="$(KEEP)" ONLY="$(ONLY)" sh tests/fresh.sh $(ROOTS)

fuzz: needs-rust+bpf+fuzz ## fuzz what reads input: FUZZ=TARGET TIME=SECONDS
	$(SH) fuzz/fuzz.sh $(FUZZ) $(TIME)
coverage: needs-rust+bpf+fuzz ## print how many lines of the parsers the corpus reaches; fail below 95 % of a file
	$(SH) fuzz/coverage.sh
run: all ## build, and run stalld with ARGS=...
	$(SUDO) $(BINARY) $(ARGS)

static: needs-$(STATIC_TOOLS) ## build target/static/stalld and stallstat, each one file without shared libraries
	$(SH) packaging/static.sh $(STATIC) $(STATIC_FEATURES) $(STAT_BIN)
	$(SH) packaging/notices.sh $(STATIC_FEATURES) >$(dir $(STATIC))NOTICES.txt
	$(SH) packaging/sbom.sh $(STATIC_FEATURES) >$(dir $(STATIC))stalld.cdx.json
cross: needs-rust ## build target/cross/ARCH/stalld for another architecture, as root, on Debian: ARCH=s390x
	CARGO="$(CARGO)" sh packaging/cross.sh $(ARCH) target/cross/$(ARCH)/stalld
test-cross: cross ## boot a kernel of that architecture in emulation, and test there
	ARCH=$(ARCH) sh tests/vm/run.sh target/cross/$(ARCH)/stalld all
lib: needs-$(TOOLS)+lib ## build the C library below target/lib
	$(SH) packaging/lib.sh target/lib $(PREFIX) $(LIBDIR) $(FEATURES)

install: $(BINARY) ## install below DESTDIR and PREFIX what `make` and `make lib` built
install-lib: $(LIBRARY) ## install the C library, its header and its manual pages
install-stat: ## install stallstat, its manual page and its completions
uninstall: ## remove what `make install` installed, but for the service's options
install install-lib install-stat uninstall:
	@PREFIX=$(PREFIX) LIBDIR=$(LIBDIR) BINARY=$(BINARY) STAT=$(STAT) LIBRARY=$(LIBRARY) sh packaging/files.sh $@
# Built only if it is missing, so that `make && sudo make install` runs no compiler as root.
$(BINARY) $(LIBRARY):
	$(MAKE) $(if $(filter $(LIBRARY),$@),lib,all)

dist: needs-rust+dist ## pack the source, its crates and the list of what is in it, into target/packages
dist-static: needs-dist static ## pack the static binaries with all that belongs to it, into target/packages
deb: needs-rust+bpf+deb dist ## build the Debian packages from what `make dist` packs, without network
rpm: needs-rust+bpf+rpm dist ## build the RPM packages from what `make dist` packs, without network
dist dist-static deb rpm:
	CARGO="$(CARGO)" sh packaging/$@.sh $(DIST)
test-packages: needs-packages deb rpm dist-static ## install and check the packages, as root, and build them again
	$(SUDO) env PATH="$(PATH)" sh tests/packages.sh $(DIST)
	sh tests/built_again.sh $(DIST)

lint: needs-$(TOOLS)+lint ## check formatting, lints, scripts, manual pages, and the rules of the tree
	CARGO="$(CARGO)" CARGOFLAGS="$(CARGOFLAGS)" sh tests/lint.sh
regen: needs-rust+bpf+regen regen-options ## write again the committed files that come from others
	$(CARGO) check $(CARGOFLAGS) --features regen
	$(CARGO) check $(CARGOFLAGS) --package libstalld --features regen
regen-options: needs-rust+bpf ## write the options of the programs again into completions and manual pages
	$(CARGO) run $(CARGOFLAGS) --example options

bench: bench-rig ## measure all that is promised, as root, in an hour (ROWS=... for some of it; WRITE=1; PEER=FILE)
	$(BENCH) $(if $(WRITE),--write=docs) $(ROWS)
soak: TIME = 10m
soak: needs-soak bench-rig ## starve tasks at random for TIME=10m, with the kernel's tracer as a witness; as root
	$(BENCH) --soak=$(TIME)
bench-rig: needs-$(TOOLS)
	$(CARGO) build $(CARGOFLAGS) --release $(FEATURES) --example starve

annocheck: $(BINARY) ## check that what is built is hardened
	sh tests/hardening.sh $(BINARY) $(wildcard $(STAT) $(STATIC) $(dir $(STATIC))stallstat target/lib/libstalld.so)
abi: needs-rust+lib+abi lib ## check that the C library's ABI is what it was
	$(SH) tests/abi.sh
msrv: ## check that the oldest supported Rust builds it
	sh tests/msrv.sh $(CARGOFLAGS)
clean: ## remove all that was built
	rm -rf target
help: ## this list
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
