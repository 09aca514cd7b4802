"""Containers that a VM has from the one that it goes on from: what is kept of each, and how it is given back where nobody has taken it."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import final

import msgspec

from utilityvm.containers.document import ContainerId
from utilityvm.containers.releases import Releases
from utilityvm.containers.root import Parts, RootFs, ScratchDisk
from utilityvm.devices.layers import Bus, ImageLayer
from utilityvm.devices.tables import Tables
from utilityvm.kit.errors import NotFound, StateError, Unsupported
from utilityvm.store.devices import ContainerRecord
from utilityvm.wire.oci import OciProcess


class Kept(msgspec.Struct, frozen=True):
    """A container as a VM that goes on from this one can have it, but for what it `lacks`, each by its name."""

    record: ContainerRecord
    lacks: Sequence[str] = ()


def kept(name: ContainerId, process: OciProcess | None, root: RootFs | None, lacks: Sequence[str]) -> Kept:
    """Return what is kept of a container with this first process and root file system."""
    root = root or RootFs("")
    scratch = root.scratch.guest_path if root.scratch else ""
    return Kept(ContainerRecord(id=name, process=process, layers=root.layers, root=root.path, scratch=scratch), lacks)


@final
class Inherited:
    """The containers of the VM `name` that are another's before anybody takes them over, and the records of those that are its own."""

    def __init__(self, name: str, records: Sequence[ContainerRecord]) -> None:
        self._name = name
        self._waiting = {ContainerId(record.id): Kept(record) for record in records}
        self._own: dict[ContainerId, Kept] = {}

    def __contains__(self, name: ContainerId) -> bool:
        return name in self._waiting

    def find(self, name: ContainerId) -> ContainerRecord:
        """Return the record of a container that can be taken over.

        Raises:
            NotFound: there is none of this id.
        """
        if name not in self._waiting:
            there = f"it has {', '.join(self._waiting)}" if self._waiting else "it has none, or all of them were taken over"
            raise NotFound(f"{self._name}: goes on from no VM with a container {name}", hint=there)
        return self._waiting[name].record

    def take(self, name: ContainerId) -> None:
        """Note that a container was taken over."""
        self._own[name] = self._waiting.pop(name)

    def add(self, name: ContainerId, what: Kept, there: AbstractSet[ContainerId]) -> None:
        """Note a container that was made here, beside those that are `there`."""
        self._own = {other: kept for other, kept in self._own.items() if other in there} | {name: what}

    def save(self, there: Sequence[ContainerId], coming: Sequence[ContainerId]) -> tuple[ContainerRecord, ...]:
        """Return the records of those that are `there`, and of those that nobody has taken over.

        Raises:
            StateError: one is `coming`.
            Unsupported: one has what a VM that goes on from this one could not have.
        """
        if coming:
            raise StateError(self._name, f"being given the container {coming[0]}", "be saved or forked")
        found = [*self._waiting.values(), *(self._own[name] for name in there)]
        if lacks := [f"the container {one.record.id} {', '.join(one.lacks)}" for one in found if one.lacks]:
            hint = "delete the container first, or make it without"
            raise Unsupported(f"{self._name}: cannot be saved or forked: it has for {'; for '.join(lacks)}", hint=hint)
        return tuple(one.record for one in found)


def taken(record: ContainerRecord, tables: Tables, given: Releases) -> ScratchDisk | None:
    """Put on `given` how what a container has is given back, and return the disk that it writes to.

    What is there no more was given back already.
    """
    parts, scratch = Parts(tables, given), None
    for guest_path in record.layers:
        if (layer := _layer(guest_path, tables)) is not None:
            parts.layer(layer)
    disk = next((disk for disk in tables.scsi.disks if record.scratch and disk.guest_path == record.scratch), None)
    if disk is not None:
        scratch = ScratchDisk(disk.host_path, disk.guest_path)
        scratch.take()
        parts.disk(scratch)
    if record.root:
        parts.union(record.root)
    return scratch


def _layer(guest_path: str, tables: Tables) -> ImageLayer | None:
    for device in tables.vpmem.devices:
        if device.guest_path == guest_path:
            return ImageLayer(device.host_path, guest_path, Bus.VPMEM)
    for disk in tables.scsi.disks:
        if disk.guest_path == guest_path:
            return ImageLayer(disk.host_path, guest_path, Bus.SCSI)
    return None
