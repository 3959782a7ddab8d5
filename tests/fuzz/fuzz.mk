# SPDX-License-Identifier: Apache-2.0
# Fuzzers: build/fuzz/NAME of each tests/fuzz/fuzz_NAME.c, with an archive that clang made for them.
# make fuzz [TEST=manifest] [SECONDS=600]; `make test` runs each 20 s.
FUZZ_CC    ?= clang
FUZZ_FLAGS := -std=gnu11 -O1 -g -Wall -Wextra -Wno-missing-field-initializers \
              -fno-strict-aliasing -fno-omit-frame-pointer -pthread \
              -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ       := $(patsubst tests/fuzz/fuzz_%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
$(BUILD)/fuzz/obj/%.o: %.c
	$(call say,FUZZ,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
$(BUILD)/fuzz/libcairn.a: $(call objs,fuzz/obj,$(LIB_SRC))
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(BUILD)/fuzz/obj/userspace/observe/loader.o: $(BPF_SKEL)
# what a fuzzer puts in place of a part of the archive comes first
$(FUZZ): $(BUILD)/fuzz/%: $(BUILD)/fuzz/obj/tests/fuzz/fuzz_%.o $(BUILD)/fuzz/libcairn.a
	$(call say,LINK,$@)
	$(Q)$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer -Wl,--allow-multiple-definition -o $@ $^ $(PKG_LIBS)
fuzz-build: $(FUZZ)
fuzz: fuzz-build
	$(Q)tests/fuzz/run --seconds $(or $(SECONDS),600) $(if $(TEST),$(BUILD)/fuzz/$(TEST),$(FUZZ))
.PHONY: fuzz fuzz-build
