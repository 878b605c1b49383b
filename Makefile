# GNU make, POSIX sh. `make help` lists the targets.

PREFIX  ?= /usr
BINDIR  = $(PREFIX)/bin
MANDIR  = $(PREFIX)/share/man
DOCDIR  = $(PREFIX)/share/doc/stalld
UNITDIR = $(PREFIX)/lib/systemd/system
BASHDIR = $(PREFIX)/share/bash-completion/completions
ZSHDIR  = $(PREFIX)/share/zsh/site-functions
FISHDIR = $(PREFIX)/share/fish/vendor_completions.d
# Where an administrator looks for the options of services.
CONFDIR ?= $(if $(wildcard /etc/debian_version),/etc/default,/etc/sysconfig)
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR = $(PREFIX)/include
DESTDIR ?=
# Arguments of stalld for `make run`, of cargo test for `make test`, of rpmbuild for `make rpm`.
ARGS     =
TESTS    = fast
TESTARGS =
RPMFLAGS =
# Rows of the table for `make bench`, by a part of their names; WRITE=1 has it write docs/BENCHMARKS.md, PEER=FILE measures
# another stalld beside ours.
ROWS     =
WRITE   ?=
PEER    ?=
# Kernels that `make test-vm` boots: names in tests/vm/packages.lock, some with words for the kernel's
# command line. KERNEL=FILE boots a kernel of your own. FEW_KERNELS are for `make test-vm-few`.
ALL_KERNELS = 5.10-rt 6.1 6.1-rt 6.12 6.12-rt 7.2 7.2-rt
KERNELS     = $(ALL_KERNELS) 6.1+attacks 6.1-rt+attacks 7.2-rt+attacks 6.1-rt+cpus=4 6.1-rt+isolcpus=2+nohz_full=2+rcu_nocbs=2 \
	6.1+debugfs=off 6.1+btf=off 6.1+bpf=off 6.1+groups=v1 \
	$(ALL_KERNELS:%=%+lockdown=integrity) $(ALL_KERNELS:%=%+lockdown=confidentiality)
FEW_KERNELS = 5.10-rt+few 6.1-rt+few 7.2-rt+few 6.12-rt+lockdown=confidentiality
# What `make test-service` boots.
SERVICE_KERNELS = 6.1 6.1-rt
# What `make test-fresh` makes: see tests/fresh.sh, which also reads ONLY and KEEP.
ROOTS    = debian12 debian13 debian12-user debian13-user
ONLY     =
KEEP     =
# What `make cross` builds for: aarch64, s390x, riscv64, ppc64le or i686.
ARCH     = aarch64
# What `make fuzz` fuzzes, and for how many seconds; `make soak` takes TIME, too.
FUZZ     = sched_debug
TIME     = 60
# BPF=0 leaves libbpf and the backends on it out; DEBUG=1 builds with checks and debug information.
BPF   = 1
DEBUG = 0
CARGO      ?= cargo
CARGOFLAGS ?= --locked

SETUP = sh packaging/setup.sh
BENCH = $(SUDO) env PATH="$(PATH)" PEER="$(PEER)" $(CARGO) bench $(CARGOFLAGS) $(FEATURES) --bench bench --

# Which is all that stallstat is.
ifeq ($(BPF),0)
FEATURES        = --no-default-features
STATIC_FEATURES = --no-default-features
STAT_BIN        =
STAT            = none
TOOLS           = rust
STATIC_TOOLS    = libc
else
FEATURES        =
STATIC_FEATURES = --features vendored
STAT_BIN        = --bin stallstat
STAT            = $(dir $(BINARY))stallstat
TOOLS           = rust bpf
STATIC_TOOLS    = static
endif

ifeq ($(DEBUG),1)
BUILD   = debug
PROFILE =
else
BUILD   = release
PROFILE = --release
endif

BINARY  = target/$(BUILD)/stalld
STATIC  = target/static/stalld
DIST    = target/packages
SCRIPTS = $(wildcard packaging/*.sh packaging/completions/*.bash tests/*.sh tests/lint/*.sh tests/vm/*.sh tests/vm/bin/* fuzz/*.sh) packaging/throttlectl packaging/debian/tests/library tests/vm/init .ci/run
LIBRARY = target/lib/libstalld.pc
PAGES   = $(wildcard man/*.8)
STATPAGE = man/stallstat.8
LIBPAGES = $(wildcard man/*.3)
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

# The paths below are promised, wherever cargo was told to build.
export CARGO_TARGET_DIR = $(CURDIR)/target
ifeq ($(CARGO),cargo)
CARGO_DIR := $(shell $(SETUP) --cargo)
ifneq ($(CARGO_DIR),)
export PATH := $(CARGO_DIR):$(PATH)
endif
endif

.PHONY: all stalld lib demo demo-run setup setup-test setup-static setup-lint setup-packages setup-fuzz setup-monitoring \
	setup-soak setup-all \
	static cross run test test-long test-adversary test-mutants test-run test-vm test-vm-few test-vm-fetch test-cross test-service test-fresh tests fuzz coverage \
	install install-lib install-stat uninstall dist \
	dist-static deb rpm test-packages lint regen regen-options bench bench-rig soak annocheck abi msrv clean help

all: ## build target/release/stalld and stallstat (DEBUG=1: in target/debug; BPF=0: without libbpf, and so no stallstat)
	@$(SETUP) --check $(TOOLS)
	$(CARGO) build $(CARGOFLAGS) $(PROFILE) $(FEATURES) --bin stalld $(STAT_BIN)

stalld: all

demo: ## install what is missing, build, starve a task on the last CPU, show stalld rescue it
	@sh tests/demo.sh --check
	@$(SETUP) --root $(TOOLS)
	@$(MAKE) --no-print-directory all
# A make of its own: the setup may have brought another cargo.
	@$(MAKE) --no-print-directory demo-run

demo-run:
	$(CARGO) build $(CARGOFLAGS) $(PROFILE) $(FEATURES) --example starve
	$(SUDO) sh tests/demo.sh $(BINARY) target/$(BUILD)/examples/starve

test: ## install what is missing, and run the tests; as root or by sudo, they starve tasks on the last CPU
	@$(SETUP) --root $(TOOLS) lib test
	@$(MAKE) --no-print-directory test-run

test-long: ## the same with the tests that take minutes: valgrind, faults, ten million simulated steps
	@$(SETUP) --root $(TOOLS) lib test
	@$(MAKE) --no-print-directory test-run TESTS=long

test-adversary: ## run attacks by a user without privileges on stalld; as root or by sudo, in ten minutes
	@$(SETUP) --root $(TOOLS) lib test
	@$(MAKE) --no-print-directory test-run TESTS=adversary

test-mutants: ## revert each fix of an attack in turn, and check that its test fails
	@$(SETUP) --root $(TOOLS) lib test
	@$(MAKE) --no-print-directory test-run TESTS=mutants

# A make of its own: the setup may have brought another cargo.
test-run: lib
	CARGO="$(CARGO)" FEATURES="$(CARGOFLAGS) $(FEATURES)" sh tests/run.sh $(TESTS) $(TESTARGS)

tests: ## build the tests
	@$(SETUP) --check $(TOOLS)
	$(CARGO) test $(CARGOFLAGS) --workspace $(FEATURES) --no-run

test-vm: ## boot other kernels in emulation, and test there: KERNELS="6.1-rt 6.12", or KERNEL=FILE
	@$(SETUP) --check rust $(STATIC_TOOLS)
	CARGO="$(CARGO) $(CARGOFLAGS)" sh packaging/static.sh $(STATIC) $(STATIC_FEATURES) $(STAT_BIN) --example starve --example attack
	CARGO="$(CARGO) $(CARGOFLAGS)" sh packaging/static.sh $(STATIC)-nobpf --no-default-features
	sh tests/vm/run.sh $(STATIC) $(if $(KERNEL),$(abspath $(KERNEL)),$(KERNELS))

test-vm-few: ## the same with few of them, in some minutes
	@$(MAKE) --no-print-directory test-vm KERNELS="$(FEW_KERNELS)"

test-vm-fetch: ## check that Debian still has what the VM tests take from it, and download it (FORCE=1: again)
	sh tests/vm/fetch.sh --all $(if $(FORCE),--force)

test-service: deb ## boot a Debian with the package, in emulation, and check its service: SERVICE_KERNELS="6.1"
	$(SUDO) sh tests/vm/service.sh $(DIST)/stalld_[0-9]*.deb $(SERVICE_KERNELS)

test-fresh: ## run the README's commands on bare Debian systems, as root: ROOTS="debian12 debian13-user", or ROOTS=ci
	$(SUDO) env KEEP="$(KEEP)" ONLY="$(ONLY)" sh tests/fresh.sh $(ROOTS)

fuzz: ## fuzz what reads input: FUZZ=TARGET TIME=SECONDS
	@$(SETUP) --check rust bpf fuzz
	CARGO="$(CARGO) $(CARGOFLAGS)" sh fuzz/fuzz.sh $(FUZZ) $(TIME)

coverage: ## print how many of the parsers' lines the fuzzers' corpus reaches: 95 % of each file, or it fails
	@$(SETUP) --check rust bpf fuzz
	CARGO="$(CARGO) $(CARGOFLAGS)" sh fuzz/coverage.sh

run: all ## build, and run stalld with ARGS=...
	$(SUDO) $(BINARY) $(ARGS)

static: ## build target/static/stalld and stallstat, each one file without shared libraries
	@$(SETUP) --check rust $(STATIC_TOOLS)
	CARGO="$(CARGO) $(CARGOFLAGS)" sh packaging/static.sh $(STATIC) $(STATIC_FEATURES) $(STAT_BIN)
# What belongs to them wherever they go.
	CARGO="$(CARGO) $(CARGOFLAGS)" sh packaging/notices.sh $(STATIC_FEATURES) >$(dir $(STATIC))NOTICES.txt
	CARGO="$(CARGO) $(CARGOFLAGS)" sh packaging/sbom.sh $(STATIC_FEATURES) >$(dir $(STATIC))stalld.cdx.json

cross: ## build target/cross/ARCH/stalld for another architecture, as root, on Debian: ARCH=s390x
	@$(SETUP) --check rust
	CARGO="$(CARGO)" sh packaging/cross.sh $(ARCH) target/cross/$(ARCH)/stalld

test-cross: cross ## boot a kernel of that architecture in emulation, and test there
	ARCH=$(ARCH) sh tests/vm/run.sh target/cross/$(ARCH)/stalld "$$(sed -n 's/^\([0-9.]*-$(ARCH)\) .*/\1/p' tests/vm/packages.lock)"

lib: ## build the C library below target/lib
	@$(SETUP) --check $(TOOLS) lib
	CARGO="$(CARGO) $(CARGOFLAGS)" sh packaging/lib.sh target/lib $(PREFIX) $(LIBDIR) $(FEATURES)

setup: ## install what building needs, after printing it
	@$(SETUP) $(TOOLS) lib

setup-test: ## install what `make test` needs, which it does itself
	@$(SETUP) $(TOOLS) lib test

setup-static: ## install what `make static` and `make test-vm` need
	@$(SETUP) rust static

setup-lint: ## install what `make lint` and `make regen` need
	@$(SETUP) $(TOOLS) lint regen

setup-packages: ## install what building and checking packages needs, on Debian
	@$(SETUP) rust bpf static dist deb rpm packages

setup-monitoring: ## install the Prometheus that `make test` shows stalld's numbers to, without starting it
	@$(SETUP) monitoring

setup-soak: ## install what `make soak` needs
	@$(SETUP) $(TOOLS) soak

setup-all: ## install all of these, except what only checks packages
	@$(SETUP) $(TOOLS) lib test static lint regen abi dist deb rpm monitoring soak

setup-fuzz: ## install what `make fuzz` and `make coverage` need, which no other target does
	@$(SETUP) rust bpf fuzz

# Builds only if nothing is built, so that `make && sudo make install` runs no compiler as root.
install: $(BINARY) $(if $(wildcard $(LIBRARY)),install-lib) ## install below DESTDIR and PREFIX what `make` and `make lib` built
	install -D -m 755 -t $(DESTDIR)$(BINDIR) $(BINARY) packaging/throttlectl
	install -D -m 644 -t $(DESTDIR)$(DOCDIR) README.md CHANGELOG.md COPYING.md LICENSES/*.txt
	install -D -m 644 -t $(DESTDIR)$(DOCDIR)/monitoring packaging/monitoring/*
	install -D -m 644 -t $(DESTDIR)$(MANDIR)/man8 $(filter-out $(STATPAGE),$(PAGES))
	install -D -m 644 -t $(DESTDIR)$(UNITDIR) packaging/systemd/stalld.service
	sed -i 's|/usr/bin/stalld|$(BINDIR)/stalld|; s|/usr/bin/throttlectl|$(BINDIR)/throttlectl|' $(DESTDIR)$(UNITDIR)/stalld.service
	install -D -m 644 packaging/completions/stalld.bash $(DESTDIR)$(BASHDIR)/stalld
	ln -sf stalld $(DESTDIR)$(BASHDIR)/throttlectl
	install -D -m 644 -t $(DESTDIR)$(ZSHDIR) packaging/completions/_stalld
	install -D -m 644 -t $(DESTDIR)$(FISHDIR) packaging/completions/stalld.fish
	ln -sf stalld.fish $(DESTDIR)$(FISHDIR)/throttlectl.fish
# An administrator's own stays.
	[ -e $(DESTDIR)$(CONFDIR)/stalld ] || install -D -m 644 packaging/systemd/stalld.conf $(DESTDIR)$(CONFDIR)/stalld
	@if [ -e $(STAT) ]; then $(MAKE) --no-print-directory install-stat; fi

install-stat:
	install -D -m 755 -t $(DESTDIR)$(BINDIR) $(STAT)
	install -D -m 644 -t $(DESTDIR)$(MANDIR)/man8 $(STATPAGE)
	install -D -m 644 packaging/completions/stallstat.bash $(DESTDIR)$(BASHDIR)/stallstat
	install -D -m 644 -t $(DESTDIR)$(ZSHDIR) packaging/completions/_stallstat
	install -D -m 644 -t $(DESTDIR)$(FISHDIR) packaging/completions/stallstat.fish

$(BINARY):
	$(MAKE) all

install-lib: $(LIBRARY) ## install the C library, its header and its manual pages
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig
	cp -P target/lib/libstalld.so* $(DESTDIR)$(LIBDIR)
	install -m 644 -t $(DESTDIR)$(LIBDIR) target/lib/libstalld.a
	sed 's|^prefix=.*|prefix=$(PREFIX)|; s|^libdir=.*|libdir=$(LIBDIR)|' $(LIBRARY) >$(DESTDIR)$(LIBDIR)/pkgconfig/libstalld.pc
	install -D -m 644 -t $(DESTDIR)$(INCLUDEDIR) include/stalld.h
	$(if $(LIBPAGES),install -D -m 644 -t $(DESTDIR)$(MANDIR)/man3 $(LIBPAGES))

$(LIBRARY):
	$(MAKE) lib

uninstall: ## remove what `make install` installed, but for the service's options
	rm -f $(addprefix $(DESTDIR)$(BINDIR)/,stalld stallstat throttlectl) $(DESTDIR)$(UNITDIR)/stalld.service
	rm -f $(addprefix $(DESTDIR)$(MANDIR)/man8/,$(notdir $(PAGES)))
	rm -f $(addprefix $(DESTDIR)$(BASHDIR)/,stalld stallstat throttlectl) $(addprefix $(DESTDIR)$(ZSHDIR)/,_stalld _stallstat)
	rm -f $(patsubst %,$(DESTDIR)$(FISHDIR)/%.fish,stalld stallstat throttlectl)
	rm -rf $(DESTDIR)$(DOCDIR)
	rm -f $(DESTDIR)$(LIBDIR)/libstalld.* $(DESTDIR)$(LIBDIR)/pkgconfig/libstalld.pc $(DESTDIR)$(INCLUDEDIR)/stalld.h
	rm -f $(addprefix $(DESTDIR)$(MANDIR)/man3/,$(notdir $(LIBPAGES)))

dist: ## pack the source, its crates and the list of what is in it, into target/packages
	@$(SETUP) --check rust dist
	CARGO="$(CARGO)" sh packaging/dist.sh $(DIST)

dist-static: static ## pack the static binaries with all that belongs to it, into target/packages
	@$(SETUP) --check dist
	MAKE="$(MAKE)" STATIC=$(STATIC) sh packaging/dist-static.sh $(DIST)

deb: dist ## build the Debian packages from what `make dist` packs, without network
	@$(SETUP) --check rust bpf deb
	sh packaging/deb.sh $(DIST)

rpm: dist ## build the RPM packages from what `make dist` packs, without network
	@$(SETUP) --check rust bpf rpm
	sh packaging/rpm.sh $(DIST) $(RPMFLAGS)

test-packages: deb rpm dist-static ## install the packages below target/, as root, check them, and build them again
	@$(SETUP) --check packages
	$(SUDO) env PATH="$(PATH)" sh tests/packages.sh $(DIST)
	MAKE="$(MAKE)" sh tests/built_again.sh $(DIST)

lint: ## check formatting, lints, scripts, manual pages, and the rules of the tree
	@$(SETUP) --check $(TOOLS) lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(CARGOFLAGS) --workspace --all-targets --features seeded-faults -- -D warnings
	$(CARGO) clippy $(CARGOFLAGS) --workspace --all-targets --no-default-features -- -D warnings
	@CARGO="$(CARGO)" sh tests/crates.sh
	cppcheck --quiet --error-exitcode=1 --suppress=normalCheckLevelMaxBranches --enable=warning,performance,portability -I include ffi/examples ffi/tests
	shellcheck $(SCRIPTS)
	mandoc -T lint -W warning $(PAGES) $(LIBPAGES)
	! groff -mandoc -T utf8 -ww -W break -z $(PAGES) $(LIBPAGES) 2>&1 | grep .
	sh tests/tree.sh
	sh tests/style.sh --self-test
	sh tests/style.sh
	sh tests/layers.sh --self-test
	sh tests/layers.sh
	sh tests/regen.sh $(MAKE) --no-print-directory

regen: regen-options ## write again the committed files that come from others: sources, a header, completions, manual pages
	@$(SETUP) --check rust bpf regen
	$(CARGO) check $(CARGOFLAGS) --features regen
	$(CARGO) check $(CARGOFLAGS) --package libstalld --features regen

regen-options: ## write the options of the programs again into completions and manual pages
	@$(SETUP) --check rust bpf
	$(CARGO) run $(CARGOFLAGS) --example options

bench-rig:
	@$(SETUP) --check $(TOOLS)
	$(CARGO) build $(CARGOFLAGS) --release $(FEATURES) --example starve

bench: bench-rig ## measure all that is promised, as root, in an hour (ROWS=... for some of it; WRITE=1; PEER=FILE)
	$(BENCH) $(if $(WRITE),--write=docs) $(ROWS)

soak: TIME = 10m
soak: bench-rig ## starve tasks at random on a busy machine for TIME=10m, with the kernel's tracer as a witness; as root
	@$(SETUP) --check soak
	$(BENCH) --soak=$(TIME)

annocheck: $(BINARY) ## check that what is built is hardened
	sh tests/hardening.sh $(BINARY) $(wildcard $(STAT) $(STATIC) $(dir $(STATIC))stallstat target/lib/libstalld.so) \
		$$(ls -td target/*/release/build/libbpf-sys-*/out 2>/dev/null | head -n 1 | sed 's|.*|&/libbpf.a &/libelf.a &/libz.a|')

abi: lib ## check that the C library's ABI is what it was
	@$(SETUP) --check rust lib abi
	CARGO="$(CARGO) $(CARGOFLAGS)" sh tests/abi.sh

msrv: ## check that the oldest supported Rust builds it
	sh tests/msrv.sh $(CARGOFLAGS)

clean: ## remove all that was built
	rm -rf target

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1#/p' $(MAKEFILE_LIST) | while IFS='#' read -r target text; do \
		printf '  make %-13s %s\n' "$$target" "$$text"; \
	done
