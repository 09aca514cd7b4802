"""Memory of a file that stays in the host's memory: allocated and locked, for as long as its holder lives."""

import asyncio
import ctypes
import mmap
import os
from pathlib import Path
from typing import Final, final

from utilityvm.kit.errors import HostError

_STEP: Final = 16 << 20  # bytes locked before the event loop has its turn: some milliseconds
CAP_IPC_LOCK: Final = 14
CAP_SYS_RESOURCE: Final = 24
_EVERYBODY: Final = "4294967295"  # ids of the first user namespace, whose capabilities alone count


@final
class LockedMemory:
    """The memory of the open file `fd`, `size` bytes of it; nothing is locked before `lock`. `close` lets go of it."""

    def __init__(self, fd: int, size: int) -> None:
        self._map, self._size = mmap.mmap(fd, size, mmap.MAP_SHARED), size

    async def lock(self) -> None:
        """Allocate and lock all of it.

        Raises:
            HostError: the kernel refuses; there is no more memory, or no more may be locked.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        place = ctypes.c_char.from_buffer(self._map)
        address = ctypes.addressof(place)
        del place  # or the map could not be closed
        for offset in range(0, self._size, _STEP):
            if libc.mlock(ctypes.c_void_p(address + offset), ctypes.c_size_t(min(_STEP, self._size - offset))) != 0:
                raise HostError(f"cannot lock {self._size >> 20} MiB of memory: {os.strerror(ctypes.get_errno())}")
            await asyncio.sleep(0)

    def close(self) -> None:
        """Unlock it. A second call does nothing."""
        self._map.close()


def why_not_locked(size: int, proc: Path = Path("/proc/self")) -> str:
    """Return why this process may not lock so many bytes more, ``""`` when it may.

    Its limit is raised as far as it may go.
    """
    import resource  # noqa: PLC0415  # Unix alone has it

    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if resource.RLIM_INFINITY in (soft, hard) or has_capability(CAP_IPC_LOCK, proc):
        return ""
    locked = int(_status(proc)["VmLck"].split()[0]) << 10
    if locked + size > hard:
        return f"this process may lock {hard >> 10} KiB (RLIMIT_MEMLOCK), of which {locked >> 10} are locked already"
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return ""


def has_capability(number: int, proc: Path = Path("/proc/self")) -> bool:
    """Say whether this process has a capability over the whole host, not in a user namespace alone."""
    first = (proc / "uid_map").read_text().split()[2] == _EVERYBODY
    return first and bool(int(_status(proc)["CapEff"], 16) >> number & 1)


def _status(proc: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
