"""A machine as it stood still: descriptors, of memory and of files without a name, or of one file that was there before."""

import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Self, final

from msgspec import structs

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.inherited import Inherited
from utilityvm.compute.qemu.keeping import Content
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.memory import Room, new_memory, reopened, seal
from utilityvm.compute.qemu.origin import Origin
from utilityvm.compute.qemu.records import compare
from utilityvm.compute.qemu.savable import GENERATION, Basis
from utilityvm.kit.errors import HostError
from utilityvm.kit.files import copy_sparse
from utilityvm.store.devices import Devices
from utilityvm.store.layout import Layout
from utilityvm.store.nameless import nameless
from utilityvm.store.sleepers import Sleeper
from utilityvm.store.templates import MachineRecord


class Technique(StrEnum):
    """How the memory of a machine that stands still is taken."""

    COPY = "copy"
    """What there is of it is copied from the file behind it: it is one that QEMU shares with us."""
    MIGRATE = "migrate"
    """QEMU writes all of it, as for a migration: what the machine has changed of another's memory only QEMU has."""


@final
class Snapshot:
    """What machines go on from that are made of one that stood still, `name`; a `compute.ports.Frozen`, which has `memory` and `state`.

    `state` is written to first, and all else by `fill`, what was on its disks to files in the folder `scratch`. `pause` is how long it
    stood still for it, in seconds. The state begins at `state_at` of its file. From one that is `lone` a single machine goes on, which has
    memory of its own and holds the descriptor of the memory, and with it the lock on its file, to its end.
    """

    def __init__(
        self, name: str, machine: MachineRecord, memory: int, state: int, scratch: Path, *, state_at: int = 0, lone: bool = False
    ) -> None:
        self.name, self.machine, self.memory, self.state, self.pause = name, machine, memory, state, 0.0
        self._scratch, self._state_at, self._lone = scratch, state_at, lone
        self._contents: dict[str, int] = {}
        self._room: Room | None = None
        self.technique = Technique.MIGRATE if machine.memory_in_state else Technique.COPY

    @classmethod
    def in_memory(cls, name: str, machine: MachineRecord, scratch: Path) -> Self:
        """Make one that is to be written to, and sealed then.

        Raises:
            HostError: there is no memory.
        """
        try:
            memory = new_memory(f"uvm-fork-{name}", machine.memory_bytes)
            try:
                return cls(name, machine, memory, new_memory(f"uvm-fork-{name}-state", 0), scratch)
            except BaseException:
                os.close(memory)
                raise
        except OSError as error:
            raise HostError(f"{name}: there is no memory for a copy of it: {error.strerror}") from error

    @classmethod
    def of_sleeper(cls, sleeper: Sleeper, scratch: Path) -> Self:
        """Make one of a VM that sleeps, by descriptors of its own; what was on its disks is copied.

        Raises:
            HostError: there is no room.
        """
        memory = os.dup(sleeper.fd)
        made = cls(f"{sleeper.path}", sleeper.manifest.machine, memory, os.dup(memory), scratch, state_at=sleeper.state_at, lone=True)
        try:
            for name in sleeper.disks:
                made._contents[name] = made._made(partial(sleeper.copy_disk, name))
        except OSError as error:
            made.close()
            raise HostError(f"{sleeper.path}: a disk of it cannot be copied to {scratch}: {error.strerror}") from error
        except BaseException:
            made.close()
            raise
        return made

    def reserve(self, memory: int) -> None:
        """Have room for a copy of a memory, -1 for none, before the machine stands still.

        Raises:
            HostError: there is none.
        """
        try:
            if memory >= 0:
                self._room = Room(memory, self.memory)
        except OSError as error:
            raise HostError(f"{self.name}: there is no memory for a copy of it: {error.strerror}") from error

    def fill(self, memory: int, devices: Devices, contents: Sequence[Content]) -> None:
        """Copy a memory, for which room was made, or none (-1), and what is on the disks, of which `devices` has the records. Nobody can
        change it any more then.

        Raises:
            HostError: there is no room.
        """
        self.machine = structs.replace(self.machine, devices=devices)
        try:
            if self._room is not None:
                self._room.copy(memory)
                self._room.close()  # what is mapped cannot be sealed
            for content in contents:
                copy = partial(copy_sparse, content.fd)
                self._contents[content.name] = os.dup(content.fd) if content.read_only else self._made(copy)
        except OSError as error:
            raise HostError(f"{self.name}: cannot be copied: {error.strerror}") from error
        seal(self.memory)
        seal(self.state)

    def _made(self, copy: Callable[[int], None]) -> int:
        file = nameless(self._scratch)
        try:
            copy(file.fd)
            return reopened(file.fd, 0)
        finally:
            file.close()

    def basis(self, *, forkable: bool) -> Basis:
        """Return how a machine is begun that goes on from it, and is to be `forkable`."""
        return Basis(generation=GENERATION in self.machine.topology, own_memory=forkable or self._lone or self.machine.memory_in_state)

    def origin(self, launch: Launch, facts: HostFacts, layout: Layout) -> Origin:
        """Return what a machine that is started so goes on from; `layout` says where its disks are made.

        Raises:
            Unsupported: the two differ; the text says in what.
            NotFound: a file that it would read is gone meanwhile.
            HostError: there are no descriptors left, or no disks can be made.
        """
        compare(self.machine, launch, facts, self.name)
        inherited = Inherited(self.name, self.machine.devices, self._contents, layout.scratch, layout.layers)
        try:
            state = reopened(self.state, self._state_at)
            try:
                return Origin(self.name, self.machine, self.memory, state, inherited, lone=self._lone)
            finally:
                os.close(state)
        except OSError as error:
            inherited.close()
            raise HostError(f"{self.name}: cannot be gone on from: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it; machines that were made of it go on. A second call does nothing."""
        if self._room is not None:
            self._room.close()
        for fd in (self.memory, self.state):
            if fd >= 0:
                os.close(fd)
        self.memory = self.state = -1
        while self._contents:
            os.close(self._contents.popitem()[1])
