"""What a machine goes on from: another's memory, which it cannot change, the state of its devices, and what it had been given."""

import asyncio
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.inherited import Inherited
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.memory import copy_memory, new_memory, seal
from utilityvm.compute.qemu.records import compare
from utilityvm.compute.qemu.savable import READS_ONLY_SINCE
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import Corrupt, HostError
from utilityvm.store.layout import Layout
from utilityvm.store.templates import MachineRecord, Opened, opened

KEPT: Final = 4
"""Templates whose memory a process keeps for its next clones; the one used longest ago goes."""


@final
class _Kept:
    """A memfd that has, once it is `whole`, a template's memory. Machines may map it before: QEMU looks at nothing until it is told to."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = new_memory(f"uvm-template-{name}", size)
        self._filling, self._whole = threading.Lock(), False

    def fill(self, source: int, fd: int) -> None:
        """Copy `source` to it and seal it, unless another has. `fd` is the caller's descriptor, since ours may be closed meanwhile."""
        with self._filling:
            if not self._whole:
                copy_memory(source, fd)
                seal(fd)
                self._whole = True


@final
class Origin:
    """What one machine goes on from, `name`: descriptors of its own of a memory and of a state, each with a place of its own in the file
    behind it, and what it has `inherited`; `close` lets go of them. `machine` says what else they go with.

    The memory is `whole` before QEMU looks at it. It is in `kept` where QEMU must not have the file itself. `lone` says that the machine
    holds it to its end, for nobody else to go on from it.
    """

    def __init__(
        self,
        name: str,
        machine: MachineRecord,
        memory: int,
        state: int,
        inherited: Inherited,
        kept: _Kept | None = None,
        *,
        lone: bool = False,
    ) -> None:
        self.name, self.machine, self.inherited, self.lone, self._kept = name, machine, inherited, lone, kept
        self._fds = [os.dup(memory), os.dup(state)]
        if kept is not None:
            self._fds.append(os.dup(kept.fd))
        self.memory, self.state = self._fds[-1 if kept is not None else 0], self._fds[1]

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the files that it boots from and that its guest only reads, by their identities."""
        devices = self.inherited.devices
        given = (*(disk.file for disk in devices.disks), *(device.file for device in devices.pmem))
        return {file.identity: file.sha256 for file in (*self.machine.files.values(), *given) if file is not None and file.sha256}

    async def whole(self) -> None:
        """Copy the memory, if it is the first of its template in this process and QEMU cannot do without. A cancelled call is carried out.

        Raises:
            HostError: it cannot be copied; another may try again.
        """
        if self._kept is not None:
            await self._copy(self._kept.fill, self.memory)

    async def fill(self, memory: int) -> None:
        """Copy the memory to an empty file, a machine's own. A cancelled call is carried out.

        Raises:
            HostError: as `whole`.
        """
        if not self.machine.memory_in_state:
            await self._copy(copy_memory, memory)

    async def _copy(self, copy: Callable[[int, int], None], target: int) -> None:
        try:
            await finish(asyncio.to_thread(copy, self._fds[0], target), within=None)
        except OSError as error:
            raise HostError(f"{self.name}: its memory cannot be copied: {error.strerror}") from error

    def close(self) -> None:
        """Let go of all. A second call does nothing."""
        self.inherited.close()
        while self._fds:
            os.close(self._fds.pop())
        self.memory = self.state = -1


async def in_thread(make: Callable[[], Origin]) -> Origin:
    """Make an origin beside the event loop: files are read for it. A cancelled call leaves nothing."""
    made: list[Origin] = []
    try:
        await finish(asyncio.to_thread(lambda: made.append(make())), within=None)
    except BaseException:
        for origin in made:
            origin.close()
        raise
    return made[0]


@final
class Memories:
    """The memory of templates in this process, copied once for all clones that it makes of one, and sealed.

    It is copied while the first clone's QEMU starts. A QEMU that can open a file for reading alone has the template's own.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, ...], _Kept] = OrderedDict()
        self._busy = threading.Lock()  # clones may be made in more than one event loop

    async def take(self, folder: Path, launch: Launch, facts: HostFacts, layout: Layout) -> Origin:
        """Return what a machine that is started so goes on from; `layout` says where its disks are made. A cancelled call leaves nothing.

        Raises:
            NotFound, Corrupt, HostError: the template is not there, or not as it was written.
            Unsupported: it goes on from the template of another machine; the text says what differs.
        """
        return await in_thread(lambda: self._take(folder, launch, facts, layout))

    def close(self) -> None:
        """Forget all of it; clones that run go on."""
        with self._busy:
            while self._kept:
                os.close(self._kept.popitem()[1].fd)

    def _take(self, folder: Path, launch: Launch, facts: HostFacts, layout: Layout) -> Origin:
        with opened(folder, launch.template) as template:
            name, machine = f"template {launch.template}", template.manifest.machine
            compare(machine, launch, facts, name)
            _check(template)
            inherited = Inherited(name, machine.devices, template.contents, layout.scratch, layout.layers)
            try:
                if launch.own_memory or facts.version >= READS_ONLY_SINCE:
                    return Origin(name, machine, template.memory, template.state, inherited)
                with self._busy:
                    return Origin(name, machine, template.memory, template.state, inherited, self._of(template.memory, launch.template))
            except OSError as error:
                inherited.close()
                raise HostError(f"{name}: there is no memory for it: {error.strerror}") from error

    def _of(self, file: int, name: str) -> _Kept:
        about = os.fstat(file)
        key = (about.st_dev, about.st_ino, about.st_mtime_ns)
        if (kept := self._kept.get(key)) is None:
            kept = self._kept[key] = _Kept(name, about.st_size)
            if len(self._kept) > KEPT:
                os.close(self._kept.popitem(last=False)[1].fd)
        self._kept.move_to_end(key)
        return kept


def _check(template: Opened) -> None:
    name, record = f"template {template.manifest.id}", template.manifest.machine
    if (size := os.fstat(template.memory).st_size) != record.memory_bytes:
        raise Corrupt(f"{name}: its memory has {size} bytes, and should have {record.memory_bytes}")
    found = hashlib.sha256(os.pread(template.state, os.fstat(template.state).st_size, 0)).hexdigest()
    if found != template.manifest.state_sha256:
        raise Corrupt(f"{name}: the state of its devices is not as it was written")
