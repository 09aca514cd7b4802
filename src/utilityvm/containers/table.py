"""The containers of one VM: how each is made, which there are, and what becomes of them when the VM ends."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Final, final

import msgspec
from msgspec.structs import replace

from utilityvm.compute.containers import InGuest
from utilityvm.containers import document
from utilityvm.containers.assigned import assign, check_devices
from utilityvm.containers.container import Container, OfVm
from utilityvm.containers.document import ContainerId
from utilityvm.containers.inherited import Inherited, kept, taken
from utilityvm.containers.life import ContainerState
from utilityvm.containers.mounts import Mounts, check_mounts, of_host
from utilityvm.containers.releases import Releases
from utilityvm.containers.root import Rooms, RootFs, ScratchDisk
from utilityvm.containers.scratch import check_size
from utilityvm.containers.volumes import Volumes
from utilityvm.devices.ports import Owner
from utilityvm.devices.tables import Tables
from utilityvm.guest.collect import run_process
from utilityvm.guest.connection import GuestConnection
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import Exists, InvalidOptions, NotFound, StateError, UtilityVMError
from utilityvm.options.annotations import check_annotations
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.store.devices import ContainerRecord
from utilityvm.wire.oci import Root, Spec, read_spec

FilePath = str | PathLike[str]

SETTLE_TIMEOUT: Final = 5.0
"""Seconds that the guest of a VM which is closed has to write what it holds of volumes."""


class Asked(msgspec.Struct, frozen=True):
    """What `UtilityVM.create_container` is asked for."""

    spec: object
    layers: Sequence[FilePath]
    scratch_size_in_bytes: int | None
    scratch: Container | FilePath | None
    pod: Container | None


@final
class Containers:
    """The containers of one VM, `vm`, with its devices and the options that it was made with."""

    def __init__(
        self, vm: OfVm, owner: Owner, tables: Tables, options: OptionsLCOW | OptionsWCOW, inherited: Sequence[ContainerRecord] = ()
    ) -> None:
        self._vm, self._owner, self._tables, self._options = vm, owner, tables, options
        self._inherited = Inherited(owner.name, inherited)
        self.volumes = Volumes(tables.scsi, owner.host.layout, tables.layers.mount_point, owner.name)
        self._rooms, self._mounts = Rooms(owner, tables), Mounts(owner, tables, self.volumes)
        self._there: dict[ContainerId, Container] = {}
        self._coming: set[ContainerId] = set()
        self._left: list[Releases] = []

    @property
    def there(self) -> tuple[Container, ...]:
        """Those that were created and not deleted, in the order of their creation."""
        return tuple(one for one in self._there.values() if one.state is not ContainerState.DELETED)

    async def create(self, container_id: str, asked: Asked) -> Container:
        """Make a container. See `UtilityVM.create_container`."""
        name = document.parse_container_id(container_id)
        if (before := self._there.get(name)) is not None and before.state is ContainerState.DELETED:
            await before.close()  # what of it is on its way out, or could not be given back
        self._there = {other: one for other, one in self._there.items() if one.state is not ContainerState.DELETED or not one.released}
        if name in self._coming or name in self._there:
            raise Exists(f"container {name} already exists", hint=f"{self._owner.name} has one of this id: delete it, or take another id")
        if name in self._inherited:
            raise Exists(f"container {name} already exists", hint=f"{self._owner.name} goes on from a VM that has it: clone_container")
        self._coming.add(name)
        try:
            made = self._there[name] = await self._make(name, asked)
        finally:
            self._coming.discard(name)
        return made

    async def clone(self, container_id: str, guest: GuestConnection) -> Container:
        """Take a container over. See `UtilityVM.clone_container`."""
        name = document.parse_container_id(container_id)
        if name in self._coming:
            raise StateError(f"container {name}", "being taken over", "be taken over")
        record = self._inherited.find(name)
        self._coming.add(name)
        try:
            state = await guest.container_state(name)
            scratch = taken(record, self._tables, given := self._releases())
            there = guest.adopt_container(name)
            made = self._there[name] = Container(name, self._vm, there, record.process, given, scratch)
            made.go_on(state, there.process(state.process_id) if state.runs else None)
            self._inherited.take(name)
        finally:
            self._coming.discard(name)
        return made

    def save(self) -> tuple[ContainerRecord, ...]:
        """Return the records of all containers, for a VM that goes on from this one.

        Raises:
            StateError: one is being made.
            Unsupported: one has what another VM could not have.
        """
        return self._inherited.save([one.id for one in self.there], [*self._coming])

    async def settled(self) -> None:
        """Wait until nothing that containers have given back is on its way out of the VM."""
        for one in [*self._there.values()]:
            await one.settled()
        for left in [*self._left]:
            await left.settled()

    async def settle(self, start: Callable[[ProcessSpec], Awaitable[Process]]) -> None:
        """Let the guest write what it has of volumes to their disks, by a program that `start` starts; for a moment, and if it can."""
        if not self.volumes.written:
            return
        spec = ProcessSpec(argv=("sync",), env=(("PATH", "/bin:/usr/bin:/sbin"),), cwd="/")
        with suppress(UtilityVMError):  # another agent's guest need not have it; and it may stand still
            await run_process(lambda: start(spec), f"{self._owner.name}: sync", data=b"", limit=0, timeout=SETTLE_TIMEOUT)

    def abandon(self) -> None:
        """Let go of all of them: the VM is over."""
        for one in self._there.values():
            one.abandon()
        for left in self._left:
            left.abandon()
        self._there.clear()
        self._left.clear()
        self.volumes.abandon()

    async def _make(self, name: ContainerId, asked: Asked) -> Container:
        if document.is_document(asked.spec):
            if asked.layers or asked.scratch is not None or asked.pod is not None:
                raise InvalidOptions(f"container {name}: layers, scratch or pod beside a document of its own, which says them itself")
            return self._container(name, await self._in_guest(name, asked.spec), asked.spec, self._releases())
        self._owner.needs_linux("a container of an OCI specification; a Windows guest takes a HostedSystem document")
        spec = self._checked(asked)
        disk = self._scratch(asked)
        layers = list(dict.fromkeys(map(_absolute, asked.layers)))  # one that is there twice is hidden by itself
        given = self._releases()
        try:
            root = await self._rooms.mount(name, layers, disk, given) if layers else None
            scratch_path, ours = root.scratch_path if root else "", self._vm.is_ours()
            lacks = of_host(spec.mounts)
            spec = replace(spec, mounts=await self._mounts.place(spec.mounts, given, scratch_path, ours=ours))
            if spec.windows is not None and spec.windows.devices:
                spec = replace(spec, windows=replace(spec.windows, devices=await assign(self._tables.vpci, spec.windows.devices, given)))
            wanted = document.document(spec, name, root=_root(spec, root), scratch_path=scratch_path, ours=ours)
            return self._container(name, await self._in_guest(name, wanted), wanted, given, root, lacks)
        except BaseException:
            await self._give_back(given)
            raise

    async def _in_guest(self, name: ContainerId, wanted: object) -> InGuest:
        """Create a container in the guest. One whose caller gives up is deleted first: what it stands on is taken away next."""
        made = list[InGuest]()

        async def create() -> None:
            made.append(await self._vm.create(name, wanted))

        try:
            await finish(create(), within=None)
        except BaseException:
            for one in made:
                await finish(_discard(one), within=None)
            raise
        return made[0]

    def _container(
        self, name: ContainerId, guest: InGuest, wanted: object, given: Releases, root: RootFs | None = None, lacks: Sequence[str] = ()
    ) -> Container:
        process = document.process_of(wanted)
        self._inherited.add(name, kept(name, process, root, lacks), self._there.keys())
        return Container(name, self._vm, guest, process, given, root.scratch if root else None)

    def _checked(self, asked: Asked) -> Spec:
        spec = read_spec(asked.spec)
        if asked.pod is not None:
            spec = document.in_pod(spec, asked.pod.id)
            spec = spec if self._vm.is_ours() else document.joined(spec, asked.pod.pid)
        document.check(spec, layers=bool(asked.layers), scratch=asked.scratch is not None)
        check_mounts(spec.mounts)
        check_annotations(spec.annotations, self._options)
        check_devices(self._owner, spec.windows.devices if spec.windows else ())
        self._check_network(document.network_of(spec))
        return spec

    def _check_network(self, namespace_id: str) -> None:
        """Refuse a container in a network namespace that the guest does not have: it makes one with its first adapter."""
        if namespace_id and not any(nic.namespace_id.lower() == namespace_id.lower() for nic in self._tables.network.adapters):
            hint = f"{self._owner.name} has no adapter in it: add one first, by uplinks.add or network.add_endpoint"
            raise NotFound(f"network namespace {namespace_id} not found", hint=hint)

    def _scratch(self, asked: Asked) -> ScratchDisk | str | int | None:
        if isinstance(asked.scratch, Container):
            if asked.scratch.scratch_disk is None or asked.scratch.state is ContainerState.DELETED:
                raise InvalidOptions(f"container {asked.scratch.id} has no scratch disk to be shared")
            return asked.scratch.scratch_disk
        if asked.scratch is not None:
            return _absolute(asked.scratch)
        if asked.scratch_size_in_bytes is None:
            return None
        return check_size(asked.scratch_size_in_bytes, "scratch_size_in_bytes")

    async def _give_back(self, taken: Releases) -> None:
        """Undo a creation that failed. What cannot be undone goes with the VM."""
        if not self._vm.is_over():
            await finish(taken.release(), within=None)
        if self._vm.is_over():
            taken.abandon()
        elif not taken.done:
            self._left = [*(left for left in self._left if not left.done), taken]

    def _releases(self) -> Releases:
        return Releases(self._vm.id, self._vm.scope, self._vm.is_over)


async def _discard(made: InGuest) -> None:
    """Let the guest forget a container that nobody wants."""
    with suppress(UtilityVMError):  # it goes with its VM at last
        await made.terminate()
        await made.delete_state()
    made.close()


def _root(spec: Spec, root: RootFs | None) -> Root:
    """Return the root that the guest is told of: that of the layers, which can be read only where there is nothing to write to."""
    said = spec.root or Root()
    return said if root is None else Root(path=root.path, readonly=said.readonly or root.scratch is None)


def _absolute(path: FilePath) -> str:
    return str(Path(path).absolute())
