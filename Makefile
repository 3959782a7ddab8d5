# SPDX-License-Identifier: Apache-2.0
# make [V=1]      build/cairnd and build/cairn
# make test       every test, with its own set-up        make unit|system|vm   a part of it
# make test-kernels   the VM tests on Debian's own kernel and on that of its backports
# make demo       the main job on real input             make bench         figures, beside the peers
# make tsan       the tests in which threads meet, under ThreadSanitizer
# make fuzz [TEST=manifest] [SECONDS=600]   the fuzzers of tests/fuzz
# make soak [MINUTES=20] [SEED=N]          readers who compare, while everything else fails
# make install DESTDIR= PREFIX=    make man    make deb (a Debian package in build/deb)
# make format    make lint    make clean
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
BUILD   := build
VERSION := 0.1.0

# The CLI and cairnd's main are programs; everything else is one archive that both and the tests link.
CLI_SRC  := $(wildcard userspace/cli/*.c)
SUP_SRC  := userspace/supervisor/main.c
LIB_SRC  := $(filter-out $(CLI_SRC) $(SUP_SRC),$(wildcard userspace/*/*.c nbd/*.c nbd/attach/*.c))
UNIT_SRC := $(wildcard tests/unit/test_*.c)

PKGS     := libcurl libmicrohttpd libcjson inih libcrypto liburing libsystemd \
            libbpf libnl-3.0 libnl-genl-3.0 libkmod libpng libseccomp
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS))
# what the archive needs, and of that only what a program uses
PKG_LIBS   = -Wl,--as-needed $(shell pkg-config --libs $(PKGS)) -lm -pthread

WERROR   ?= -Werror
WARN     := -Wall -Wextra $(WERROR) -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wshadow -Wvla \
            -Wno-format-truncation # texts for people are cut on purpose
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DCAIRN_VERSION='"$(VERSION)"' -Iinclude -Iuserspace -I. -I$(BUILD)
CFLAGS   ?= -O2 -g
CFLAGS   += -std=gnu11 $(WARN) -fno-strict-aliasing -pthread
SAN      := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n' $(1) $(2)
endif

objs = $(patsubst %.c,$(BUILD)/$(1)/%.o,$(2))

all: $(BUILD)/cairnd $(BUILD)/cairn

$(BUILD)/cairnd: $(call objs,obj,$(SUP_SRC)) $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/cairn: $(call objs,obj,$(CLI_SRC)) $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

$(BUILD)/%/libcairn.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(BUILD)/obj/libcairn.a: $(call objs,obj,$(LIB_SRC))
$(BUILD)/san/libcairn.a: $(call objs,san,$(LIB_SRC))

# ---- BPF: one object a question, linked into one, and a skeleton of it. Needs no BTF here. ----

BPF_CLANG ?= clang
BPFTOOL   ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
BPF_SRC   := $(wildcard bpf/*.bpf.c)
BPF_ARCH  := $(shell $(CC) -print-multiarch 2>/dev/null)
BPF_FLAGS := -g -O2 -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -target bpf -mcpu=v3 -Iinclude -I. \
             -idirafter /usr/include/$(BPF_ARCH)
BPF_SKEL  := $(BUILD)/bpf/observer.skel.h

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h) include/heat.h include/observe.h include/policy.h include/stream.h
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_FLAGS) -c -o $@ $<
$(BUILD)/bpf/observer.o: $(BPF_SRC:bpf/%.bpf.c=$(BUILD)/bpf/%.bpf.o)
	$(call say,BPFLD,$@)
	$(Q)$(BPFTOOL) gen object $@ $^
$(BPF_SKEL): $(BUILD)/bpf/observer.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name observer_bpf >$@.new && mv $@.new $@
$(foreach v,obj san tsan,$(BUILD)/$(v)/userspace/observe/loader.o): $(BPF_SKEL)

$(BUILD)/obj/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/san/%.o: %.c
	$(call say,SAN,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(SAN) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

UNIT := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
$(BUILD)/unit/%: $(BUILD)/san/tests/unit/%.o $(BUILD)/san/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(SAN) -o $@ $^ $(PKG_LIBS) -lcmocka
.SECONDARY:

# One unit test alone: make build/unit/test_tree && build/unit/test_tree
unit-build: $(UNIT)

format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

lint:
	$(Q)cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem -D_GNU_SOURCE -DCAIRN_VERSION='""' -Iinclude -Iuserspace -I. nbd userspace

clean:
	rm -rf $(BUILD)

# Programs that system tests run: build/system/NAME, and with sanitizers build/system/NAME.san
$(BUILD)/system/%.san: $(BUILD)/san/tests/system/%.o $(BUILD)/san/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(SAN) -o $@ $^ $(PKG_LIBS)
$(BUILD)/system/%: $(BUILD)/obj/tests/system/%.o $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)

# A server of one link, killed again and again; its client is libnbd in half of it.
$(BUILD)/system/link_kill: $(call objs,obj,$(wildcard tests/system/link_kill/*.c)) $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS) -lnbd

# What injects faults of a node: a disk that lies, a clock that jumps, a worker that crashes.
FAULTS := $(BUILD)/faults/baddisk $(BUILD)/faults/clock.so $(BUILD)/faults/crash_at.so
$(BUILD)/faults/baddisk: tests/faults/baddisk.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(shell pkg-config --cflags fuse3) -o $@ $< $(shell pkg-config --libs fuse3)
$(BUILD)/faults/%.so: tests/faults/%.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -shared -o $@ $<

# ThreadSanitizer, over the unit tests in which threads meet. Its shadow memory has no room for addresses
# as random as vm.mmap_rnd_bits above 28 makes them, so they are made plain where that is allowed.
# It does not see fences; the two of crash/record.c order a record that any reader checks.
TSAN := -O1 -g -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan
TSAN_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tsan/%,$(wildcard $(addprefix tests/unit/test_, \
              loop*.c store.c fill*.c nbd_server.c nbd_read.c nbd_budget.c nbd_adopt.c nbd_link.c \
              token.c bearer.c view.c)))
$(BUILD)/tsan/%.o: %.c
	$(call say,TSAN,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(TSAN) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/tsan/libcairn.a: $(call objs,tsan,$(LIB_SRC))
$(BUILD)/tsan/test_%: $(BUILD)/tsan/tests/unit/test_%.o $(BUILD)/tsan/libcairn.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(TSAN) -o $@ $^ $(PKG_LIBS) -lcmocka
# For system tests: CAIRND=build/tsan/cairnd TSAN_OPTIONS=log_path=/tmp/tsan tests/system/run NAME
$(BUILD)/tsan/cairnd: $(call objs,tsan,$(SUP_SRC)) $(BUILD)/tsan/libcairn.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(TSAN) -o $@ $^ $(PKG_LIBS)
tsan: $(TSAN_TESTS)
	$(Q)$(shell setarch -R true 2>/dev/null && echo setarch -R) tests/unit/run $(AT_ONCE) $(if $(TEST),$(BUILD)/tsan/test_$(TEST),$^)
.PHONY: tsan

-include tests/soak/soak.mk
-include tests/fuzz/fuzz.mk # not in a package's sources

# ---- tests and demo ----

# of a suite so many files run side by side
AT_ONCE := -j $(if $(TEST),1,$(shell nproc))

# On a fresh machine there is no compiler yet: set-up first, then everything else in a make of its own.
test:
	$(Q)tests/setup
	$(Q)$(MAKE) --no-print-directory all unit-build
	$(Q)$(MAKE) --no-print-directory lint
	$(Q)$(MAKE) --no-print-directory unit
	$(Q)$(MAKE) --no-print-directory tsan
	$(Q)$(MAKE) --no-print-directory fuzz SECONDS=20
	$(Q)$(MAKE) --no-print-directory system
	$(Q)$(MAKE) --no-print-directory system LOOP=epoll
	$(Q)$(MAKE) --no-print-directory vm

test-kernels:
	$(Q)tests/setup
	$(Q)tests/vm/kernel 6.12
	$(Q)$(MAKE) --no-print-directory vm KERNEL=6.1
	$(Q)$(MAKE) --no-print-directory vm KERNEL=6.12

demo:
	$(Q)tests/setup $(if $(filter file,$(ORIGIN)),--no-azurite)
	$(Q)$(MAKE) --no-print-directory all
	$(Q)ORIGIN=$(or $(ORIGIN),azure) tests/demo

# All of them even if one fails, each bounded; TEST=tree for one alone.
unit: unit-build
	$(Q)tests/unit/run $(AT_ONCE) $(if $(TEST),$(BUILD)/unit/test_$(TEST),$(UNIT))

# TEST=main_job for one alone; LOOP=epoll for the event loop that needs no io_uring.
system: all man $(addprefix $(BUILD)/bench/,origin nbdload replay) $(FAULTS) $(BUILD)/soak/reader \
        $(addprefix $(BUILD)/system/,origin_azurite.san observe_tool link_kill compare_reads hostile_worker.so)
	$(Q)tests/system/run --loop $(or $(LOOP),auto) $(AT_ONCE) $(TEST)

$(BUILD)/system/origin_azurite.san: PKG_LIBS += -lcmocka
# preloaded into a daemon, to take its worker's place
$(BUILD)/system/hostile_worker.so: tests/system/hostile_worker.c include/supervisor_protocol.h
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -shared -o $@ $< -ldl

# In guests, with a kernel that tests/vm/kernel fetched. TEST=nbd for one alone; KERNEL=6.12 for another.
KERNEL ?= 6.1
VM_PROGRAMS := $(BUILD)/soak/reader $(BUILD)/vm/bin/handover $(BUILD)/bench/origin \
               $(addprefix $(BUILD)/system/,observe_tool compare_reads link_kill)
$(BUILD)/vm/bin/handover: $(call objs,obj,$(wildcard tests/vm/handover/*.c))
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^
vm: all $(VM_PROGRAMS)
	$(Q)tests/vm/kernel $(KERNEL)
	$(Q)tests/vm/images
	$(Q)tests/vm/root $(KERNEL) $(BUILD)/cairnd $(BUILD)/cairn $(BUILD)/vm/images $(VM_PROGRAMS)
	$(if $(TEST)$(filter-out 6.1,$(KERNEL)),,$(Q)tests/vm/check_run)
	$(Q)tests/vm/run --kernel $(KERNEL) $(AT_ONCE) $(TEST)

.PHONY: all unit-build format lint clean test test-kernels demo unit system vm

# ---- man pages, install, package ----

MAN := $(patsubst docs/man/%.scd,$(BUILD)/man/%,$(wildcard docs/man/*.scd))
$(BUILD)/man/%: docs/man/%.scd Makefile
	$(call say,MAN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)sed 's|@VERSION@|$(VERSION)|' $< | scdoc > $@.new
	$(Q)mv $@.new $@

# The keys are those that cairnd knows.
$(BUILD)/man/cairnd.conf.5: docs/man/cairnd.conf.5.scd docs/man/keys.awk $(BUILD)/cairnd Makefile
	$(call say,MAN,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(BUILD)/cairnd -c /dev/null --print-config | awk -f docs/man/keys.awk - $< | \
		sed 's|@VERSION@|$(VERSION)|' | scdoc > $@.new
	$(Q)mv $@.new $@
man: $(MAN)

UNITDIR ?= $(PREFIX)/lib/systemd/system
SHARE   := $(DESTDIR)$(PREFIX)/share

# An existing cairnd.conf is the operator's and stays.
install: all man
	install -D -m 0755 $(BUILD)/cairn $(DESTDIR)$(PREFIX)/bin/cairn
	install -D -m 0755 $(BUILD)/cairnd $(DESTDIR)$(PREFIX)/sbin/cairnd
	install -d $(DESTDIR)$(UNITDIR) $(DESTDIR)/etc/cairn
	sed 's|@sbindir@|$(PREFIX)/sbin|' deploy/systemd/cairnd.service > $(DESTDIR)$(UNITDIR)/cairnd.service
	install -D -m 0644 deploy/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/cairn.conf
	install -D -m 0644 deploy/systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/cairn.conf
	install -D -m 0644 deploy/completion/cairn.bash $(SHARE)/bash-completion/completions/cairn
	install -d $(foreach n,1 5 8,$(SHARE)/man/man$(n))
	$(foreach n,1 5 8,install -m 0644 $(filter %.$(n),$(MAN)) $(SHARE)/man/man$(n) &&) true
	test -e $(DESTDIR)/etc/cairn/cairnd.conf || \
		install -m 0644 deploy/cairnd.conf $(DESTDIR)/etc/cairn/cairnd.conf

# build/deb/cairn.deb, a link to the package under its full name. debian/ stands at the top only in the
# staged tree; the package is built there by this Makefile.
DEB_TREE  := Makefile LICENSE README.md $(wildcard bpf include nbd userspace deploy docs)
DEB_STAGE := $(BUILD)/deb/cairn-$(VERSION)
deb: $(BUILD)/deb/cairn.deb
$(BUILD)/deb/cairn.deb: $(shell find $(DEB_TREE) -type f)
	$(call say,DEB,$@)
	$(Q)rm -rf $(DEB_STAGE) $(BUILD)/deb/cairn*_* $@
	$(Q)mkdir -p $(DEB_STAGE)
	$(Q)cp -a $(DEB_TREE) $(DEB_STAGE)/
	$(Q)cp -a deploy/debian $(DEB_STAGE)/debian
	$(Q)sed "s|@VERSION@|$(VERSION)|; s|@DATE@|$$(date -uR)|" deploy/debian/changelog.in > $(DEB_STAGE)/debian/changelog
	$(Q)cd $(DEB_STAGE) && rm debian/changelog.in && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS \
		dpkg-buildpackage -b -us -uc -jauto > ../log 2>&1 || { tail -n 40 ../log; exit 1; }
	$(Q)cd $(BUILD)/deb && ln -s cairn_$(VERSION)_*.deb cairn.deb

.PHONY: man install deb

# --- bench: programs of their own, one file each, and the tables made with them -----------------
BENCH := $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(wildcard tests/bench/*.c))
$(BUILD)/bench/%: $(BUILD)/obj/tests/bench/%.o
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^
$(BUILD)/bench/sealtile: $(BUILD)/obj/tests/bench/sealtile.o $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
bench-build: $(BENCH) $(BUILD)/bench/linkserver
bench:
	$(Q)tests/setup --bench
	$(Q)$(MAKE) --no-print-directory all bench-build $(REPLAY)
	$(Q)tests/bench/run
bench-check: all bench-build
	tests/bench/check_origin
# What the BPF programs cost: ns an event, and of 4 KiB reads from the page cache. As root.
bench-observe: all $(BUILD)/bench/cachedread
	$(Q)tests/bench/observe
# AF_UNIX against loopback TCP, with the server of the hand-over test
bench-handover: $(BUILD)/vm/bin/handover
	$(Q)$< bench 1
# Those that stand on the product's NBD server
$(BUILD)/bench/linkserver: $(BUILD)/obj/tests/bench/link/linkserver.o
$(BUILD)/bench/ledger: $(BUILD)/obj/tests/bench/ledger/ledger.o
$(BUILD)/bench/linkserver $(BUILD)/bench/ledger: $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(PKG_LIBS)
# The store by itself: opening it, and evicting under a reader
$(BUILD)/bench/storelab: $(BUILD)/obj/tests/bench/store/storelab.o $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
bench-build: $(BUILD)/bench/storelab
# A link with a ledger against one without, in turns
bench-ledger: $(BUILD)/bench/ledger
	$(Q)$<
# Traces under the daemon's own policy of eviction and under others: hits of each
REPLAY := $(BUILD)/bench/replay
$(REPLAY): $(call objs,obj,$(wildcard tests/bench/evict/*.c)) $(BUILD)/obj/libcairn.a
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(PKG_LIBS)
bench-evict: $(REPLAY)
	$(Q)$<
# Two exports, one with 64 readers and one with 1 or 8, before an origin that is the bottleneck
bench-fair: all bench-build
	$(Q)tests/bench/fair
.PHONY: bench bench-build bench-check bench-observe bench-handover bench-ledger bench-fair bench-evict

-include $(shell find $(BUILD) -path $(BUILD)/deb -prune -o -name '*.d' -type f -print 2>/dev/null)
