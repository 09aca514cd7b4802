"""A machine as it stood still, in memory and files without a name: descriptors, and nothing that could be left behind."""

import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import final

from msgspec import structs

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.inherited import Inherited
from utilityvm.compute.qemu.keeping import Content
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.memory import copy_memory, new_memory, reopened, seal
from utilityvm.compute.qemu.origin import Origin
from utilityvm.compute.qemu.records import compare
from utilityvm.compute.qemu.savable import GENERATION, Basis
from utilityvm.kit.errors import HostError
from utilityvm.kit.files import copy_sparse
from utilityvm.store.devices import Devices
from utilityvm.store.layout import Layout
from utilityvm.store.nameless import nameless
from utilityvm.store.templates import MachineRecord


class Technique(StrEnum):
    """How the memory of a machine that stands still is taken."""

    COPY = "copy"
    """What there is of it is copied from the file behind it: it is one that QEMU shares with us."""
    MIGRATE = "migrate"
    """QEMU writes all of it, as for a migration: what the machine has changed of another's memory only QEMU has."""


@final
class Snapshot:
    """What machines go on from that are made of a running one, `name`; a `compute.ports.Frozen`.

    `state` is written to first, and all else by `fill`, what was on its disks to files in the folder `scratch`. `pause` is how long the
    machine stood still for it, in seconds.
    """

    def __init__(self, name: str, machine: MachineRecord, scratch: Path) -> None:
        self.name, self.machine, self.pause, self._scratch = name, machine, 0.0, scratch
        self._contents: dict[str, int] = {}
        self.technique = Technique.MIGRATE if machine.memory_in_state else Technique.COPY
        try:
            self.memory = new_memory(f"uvm-fork-{name}", machine.memory_bytes)
            try:
                self.state = new_memory(f"uvm-fork-{name}-state", 0)
            except BaseException:
                os.close(self.memory)
                raise
        except OSError as error:
            raise HostError(f"{name}: there is no memory for a copy of it: {error.strerror}") from error

    def fill(self, memory: int, devices: Devices, contents: Sequence[Content]) -> None:
        """Copy a memory, -1 for none, and what is on the disks, of which `devices` has the records. Nobody can change it any more then.

        Raises:
            HostError: there is no room.
        """
        self.machine = structs.replace(self.machine, devices=devices)
        try:
            if memory >= 0:
                copy_memory(memory, self.memory)
            for content in contents:
                self._contents[content.name] = os.dup(content.fd) if content.read_only else self._copy(content.fd)
        except OSError as error:
            raise HostError(f"{self.name}: cannot be copied: {error.strerror}") from error
        seal(self.memory)
        seal(self.state)

    def _copy(self, disk: int) -> int:
        file = nameless(self._scratch)
        try:
            copy_sparse(disk, file.fd)
            return reopened(file.fd)
        finally:
            file.close()

    def basis(self, *, forkable: bool) -> Basis:
        """Return how a machine is begun that goes on from it, and is to be `forkable`."""
        return Basis(generation=GENERATION in self.machine.topology, own_memory=forkable or self.machine.memory_in_state)

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
            state = reopened(self.state)
            try:
                return Origin(self.name, self.machine, self.memory, state, inherited)
            finally:
                os.close(state)
        except OSError as error:
            inherited.close()
            raise HostError(f"{self.name}: cannot be gone on from: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it; machines that were made of it go on. A second call does nothing."""
        for fd in (self.memory, self.state):
            if fd >= 0:
                os.close(fd)
        self.memory = self.state = -1
        while self._contents:
            os.close(self._contents.popitem()[1])
