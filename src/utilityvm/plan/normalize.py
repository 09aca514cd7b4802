"""What the host makes of a wish for memory and processors: it is adjusted with a warning, never refused."""

from collections.abc import Callable

import msgspec

MEMORY_UNIT_MB = 2
UINT64 = 1 << 64
INT32 = 1 << 32


class Adjusted(msgspec.Struct, frozen=True):
    """A warning: the VM gets another number than was asked for."""

    message: str
    vm_id: str
    requested: int
    assigned: int

    @property
    def fields(self) -> dict[str, str | int]:
        """The fields of its log entry."""
        return {"uvm-id": self.vm_id, "requested": self.requested, "assigned": self.assigned}


Warn = Callable[[Adjusted], None]
"""Receives warnings in order; also those of a plan that fails afterwards."""


def normalize_memory(requested: int, *, vm_id: str, warn: Warn) -> int:
    """Round MiB up to the next even number; the largest 64-bit number wraps to 0, as in the original."""
    assigned = (requested + 1) // MEMORY_UNIT_MB * MEMORY_UNIT_MB % UINT64
    if assigned != requested:
        warn(Adjusted("Changing user requested MemorySizeInMB to align to 2MB", vm_id, requested, assigned))
    return assigned


def normalize_processors(requested: int, logical_processors: int, *, vm_id: str, warn: Warn) -> int:
    """Lower a number of processors to what the host has; that one is read as 32 bits signed, as in the original."""
    host = (logical_processors + INT32 // 2) % INT32 - INT32 // 2
    if requested <= host:
        return requested
    warn(Adjusted("Changing user requested CPUCount to current number of processors", vm_id, requested, host))
    return host
