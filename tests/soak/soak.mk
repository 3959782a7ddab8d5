# SPDX-License-Identifier: Apache-2.0
# make soak [MINUTES=20] [SEED=N]: readers who compare every byte, while workers and supervisors are killed and
# replaced and origin and disk fail, drawn from a seed. `make test` does 60 s of it, here and in a guest.
$(BUILD)/soak/reader: $(BUILD)/obj/tests/soak/reader.o
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lnbd
soak: all $(BUILD)/soak/reader
	$(Q)tests/soak/run $(or $(MINUTES),20) $(SEED)
# The same in a guest, on the kernel's own NBD.
soak-vm: MINUTES := $(or $(MINUTES),20)
soak-vm:
	$(Q)CAIRN_TEST_LIMIT=$$(($(MINUTES) * 60 + 600)) \
		CAIRN_VM_ENV="CAIRN_SOAK_SECONDS=$$(($(MINUTES) * 60)) CAIRN_SOAK_SEED=$(SEED)" \
		$(MAKE) --no-print-directory vm TEST=soak
.PHONY: soak soak-vm
