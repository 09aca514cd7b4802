"""The memory that a device of the host pins: all that the guest has, for QEMU maps it for the device as a whole."""

from collections.abc import Callable
from typing import Final, final

from utilityvm.kit.errors import Unsupported
from utilityvm.kit.locked import CAP_SYS_RESOURCE, has_capability

BESIDE: Final = 64 << 20
"""Bytes that a guest has beside its memory: firmware, the memory of its screen."""

PIN_HINT: Final = "raise the limit: ulimit -l, or LimitMEMLOCK= of systemd"
"""What to do about a limit that is too low."""


@final
class Pins:
    """What may be pinned of one machine: `size` bytes of memory, and what is mapped beside it. `qemu` tells QEMU's process."""

    def __init__(self, size: int, qemu: Callable[[], int]) -> None:
        self._size, self._qemu = size + BESIDE, qemu
        self._begun = False

    def begin(self) -> None:
        """Let QEMU pin it, before its first device comes.

        Raises:
            Unsupported: it may not pin so much, and we may not raise its limit.
        """
        self._allow(self._size)
        self._begun = True

    def add(self, size: int) -> None:
        """Say that so many bytes more will be mapped: a device that is there pins them at once, and a QEMU that may not ends.

        Raises:
            Unsupported: as `begin`; nothing was changed.
        """
        if self._begun:
            self._allow(self._size + size)
        self._size += size

    def _allow(self, size: int) -> None:
        import resource  # noqa: PLC0415  # Unix alone has it

        pid = self._qemu()
        soft, hard = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
        if soft == resource.RLIM_INFINITY or soft >= size:
            return
        try:
            resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (size, hard if hard == resource.RLIM_INFINITY else max(size, hard)))
        except (PermissionError, ValueError) as error:
            raise Unsupported(_refusal(size, hard), hint=PIN_HINT) from error


def why_not_pinned(size: int) -> str:
    """Return why a QEMU of ours could not pin `size` bytes of memory and what is beside it, ``""`` when it could."""
    import resource  # noqa: PLC0415  # Unix alone has it

    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY or hard >= size + BESIDE or has_capability(CAP_SYS_RESOURCE):
        return ""
    return _refusal(size + BESIDE, hard)


def _refusal(size: int, hard: int) -> str:
    return f"a device of the host pins {size >> 20} MiB of the guest's memory, and QEMU may pin {hard >> 20} MiB (RLIMIT_MEMLOCK)"
