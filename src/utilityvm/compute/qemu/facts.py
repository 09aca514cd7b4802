"""What lowering must know of the host; `probe` looks, `lower` only reads."""

from enum import StrEnum

import msgspec

from utilityvm.compute.qemu.jail import Jail


class Accel(StrEnum):
    """Who executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class HostFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """QEMU and the host, as far as they matter to a machine.

    `qemu` is the program, `version` its (major, minor, micro); `accel` says what will be used and `reason` why;
    `processors` are those that this process may use; `address_bits` is the width of the guest's physical addresses;
    `jail` is what holds QEMU.
    """

    qemu: str
    version: tuple[int, int, int]
    accel: Accel
    reason: str
    processors: int
    address_bits: int
    jail: Jail = Jail()
