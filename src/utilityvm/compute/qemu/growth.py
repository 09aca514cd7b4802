"""Memory that a running machine gets and gives back: a virtio-mem device of its own, plugged in when it is first needed."""

import asyncio
import os
from typing import Final, cast, final

from utilityvm.compute.qemu.lower import ROOM_MB
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import DeadlineExceeded, InvalidOptions, Unsupported

GROWTH_TIMEOUT: Final = 30.0
"""Seconds that a guest has to take memory, or to give it back."""

_DEVICE: Final = "memory0"
_MIB: Final = 1 << 20
_BLOCK_MB: Final = 2
_UNDO: Final = 5.0


@final
class Growth:
    """The memory of one machine beyond the `boot_mb` MiB that it was booted with; `place` is where its device goes, a bridge and a slot.

    `locked` says that all its memory is locked in the host's.
    """

    def __init__(self, monitor: Monitor, name: str, boot_mb: int, place: tuple[str, int], *, locked: bool = False) -> None:
        self._locked = locked
        self._monitor, self._name, self._boot_mb, self._place = monitor, name, boot_mb, place
        self._changing = asyncio.Lock()
        self._room_mb = 0  # of the device; 0 while there is none
        self._more_mb = 0

    @property
    def total_mb(self) -> int:
        """The machine's memory in MiB."""
        return self._boot_mb + self._more_mb

    @property
    def there(self) -> list[str]:
        """What was plugged in for memory, in words."""
        return [f"memory that came while it ran, or went again ({_DEVICE})"] if self._room_mb else []

    async def resize(self, total_mb: int) -> None:
        """Let the machine have so many MiB; done when its guest has taken them, or given them back.

        Raises:
            Unsupported: less than it was booted with, or more than this host has; or the machine has no addresses left for it.
            InvalidOptions: not a multiple of 2 MiB away from what it was booted with.
            DeadlineExceeded: the guest did not do it within `GROWTH_TIMEOUT` seconds; it has what it had.
            QmpError, ConnectionLost: QEMU refused, or ended.
        """
        more = total_mb - self._boot_mb
        if more and self._locked:
            raise Unsupported(f"{total_mb} MiB: memory that was locked from the start (AllowOvercommit false) stays as it is")
        if more < 0:
            raise Unsupported(f"{total_mb} MiB: is less than the {self._boot_mb} MiB that the machine was booted with")
        if more % _BLOCK_MB:
            raise InvalidOptions(f"{total_mb} MiB: the {self._boot_mb} MiB that it was booted with grow by multiples of {_BLOCK_MB}")
        async with self._changing:
            if more == self._more_mb:
                return
            await self._plug(more)
            try:
                async with asyncio.timeout(GROWTH_TIMEOUT):
                    await self._until(more)
            except TimeoutError as error:
                got = await self._size()
                await finish(self._request(self._more_mb), within=_UNDO)
                did = f"has {got} of the {more} MiB beyond the {self._boot_mb} that it was booted with"
                raise DeadlineExceeded(f"{self._name}: after {GROWTH_TIMEOUT:g} s the guest {did}") from error
            except BaseException:
                await finish(self._request(self._more_mb), within=_UNDO)
                raise
            self._more_mb = more

    async def _plug(self, more: int) -> None:
        """Plug in the device, if there is none: as large as the host's memory, since it cannot grow itself. Nothing of that is taken."""
        host_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB
        room = self._room_mb or min(host_mb - host_mb % 128, ROOM_MB)
        if more > room:
            raise Unsupported(f"{self._boot_mb + more} MiB: the machine can have at most {self._boot_mb + room} MiB on this host")
        if self._room_mb:
            return
        memory, (bridge, slot) = f"{_DEVICE}-memory", self._place
        backend = {"qom-type": "memory-backend-ram", "id": memory, "size": room * _MIB, "reserve": False, "share": False}
        device = {"driver": "virtio-mem-pci", "id": _DEVICE, "memdev": memory, "bus": bridge, "addr": f"{slot:#x}"}
        await self._monitor.execute("object-add", backend)
        try:
            await self._monitor.execute("device_add", device)
        except BaseException:
            await finish(self._monitor.execute("object-del", {"id": memory}), within=_UNDO)
            raise
        self._room_mb = room

    async def _until(self, more: int) -> None:
        await self._request(more)
        while True:
            self._monitor.memory_changed.clear()
            if await self._size() == more:
                return
            await self._monitor.memory_changed.wait()

    async def _request(self, more: int) -> None:
        where = {"path": f"/machine/peripheral/{_DEVICE}", "property": "requested-size"}
        await self._monitor.execute("qom-set", {**where, "value": more * _MIB})

    async def _size(self) -> int:
        size = await self._monitor.execute("qom-get", {"path": f"/machine/peripheral/{_DEVICE}", "property": "size"})
        return cast("int", size) // _MIB
