"""A machine as it stood still, in memory alone: descriptors, and no file that could be left behind."""

import os
from enum import StrEnum
from typing import final

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.memory import new_memory, reopened, seal
from utilityvm.compute.qemu.origin import Origin
from utilityvm.compute.qemu.records import compare
from utilityvm.compute.qemu.savable import GENERATION, Basis
from utilityvm.kit.errors import HostError
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

    `memory` and `state` are written to, then sealed. `pause` is how long the machine stood still for it, in seconds.
    """

    def __init__(self, name: str, machine: MachineRecord) -> None:
        self.name, self.machine, self.pause = name, machine, 0.0
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

    def seal(self) -> None:
        """Let nobody change it any more."""
        seal(self.memory)
        seal(self.state)

    def basis(self, *, forkable: bool) -> Basis:
        """Return how a machine is begun that goes on from it, and is to be `forkable`."""
        return Basis(generation=GENERATION in self.machine.topology, own_memory=forkable or self.machine.memory_in_state)

    def origin(self, launch: Launch, facts: HostFacts) -> Origin:
        """Return what a machine that is started so goes on from.

        Raises:
            Unsupported: the two differ; the text says in what.
            HostError: there are no descriptors left.
        """
        compare(self.machine, launch, facts, self.name)
        try:
            state = reopened(self.state)
            try:
                return Origin(self.name, self.machine, self.memory, state)
            finally:
                os.close(state)
        except OSError as error:
            raise HostError(f"{self.name}: cannot be gone on from: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it; machines that were made of it go on. A second call does nothing."""
        for fd in (self.memory, self.state):
            if fd >= 0:
                os.close(fd)
        self.memory = self.state = -1
