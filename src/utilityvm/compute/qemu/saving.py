"""A running machine is saved, or copied: its guest stands still between two packets, QEMU writes the state of the devices to a
descriptor, and what the guest has in its memory is copied. The QEMU of another machine reads that state back.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, final

from msgspec import structs

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.hotplug import Hotplug
from utilityvm.compute.qemu.keeping import Content, Keeping
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.memory import new_memory
from utilityvm.compute.qemu.monitor import ANSWER_TIMEOUT, Monitor
from utilityvm.compute.qemu.origin import Origin
from utilityvm.compute.qemu.records import NONE_KNOWN, record_of
from utilityvm.compute.qemu.snapshot import Snapshot
from utilityvm.guest.transport import Transport
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import DeadlineExceeded, HostError, QmpError, Unsupported, UtilityVMError
from utilityvm.kit.files import copy_sparse
from utilityvm.kit.ids import VmId
from utilityvm.kit.locked import LockedMemory
from utilityvm.kit.text import printable
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store.devices import Devices
from utilityvm.store.layout import Layout
from utilityvm.store.sleepers import Bed
from utilityvm.store.templates import Draft, MachineRecord, Manifest

_GO_ON: Final = 5.0
_STATE: Final = "state"
_DONE: Final = "completed"
_OVER: Final = (_DONE, "failed", "cancelled")
_FINISHING: Final = "finish-migrate"
_BANDWIDTH: Final = 1 << 40  # bytes a second: as fast as it can, to memory of this host


@final
class Saving:
    """What one machine, `system_id`, has to do with others that go on from it: `folder` is where it is saved as a template, `layout` says
    where copies of its disks are made, `origin` is what it goes on from itself, which is closed with it.
    """

    def __init__(
        self, system_id: VmId, launch: Launch, facts: HostFacts, folder: Path, layout: Layout, origin: Origin | None = None
    ) -> None:
        self._id, self._launch, self._facts, self._folder, self._layout = system_id, launch, facts, folder, layout
        self._origin = origin
        self._own = -1  # the machine's own memory, where it does not change another's for itself alone
        self.inherited = Devices() if origin is None else origin.inherited.devices
        """What it has from the one that it goes on from; nothing when it boots."""
        self._known = NONE_KNOWN if origin is None else origin.digests

    async def begin(self, held: ExitStack) -> int:
        """Return a descriptor of the memory to start with: the machine's own, which `held` closes, or another's that it must not change.

        It is locked if that was asked for: QEMU does not start before the host has given it all.

        Raises:
            HostError: there is none, or it cannot be locked.
        """
        if self._origin is not None and not self._launch.own_memory:
            return self._origin.memory
        try:
            if self._origin is not None and self._origin.lone:
                held.callback(os.close, os.dup(self._origin.memory))
            self._own = new_memory(f"uvm-{self._id}", self._launch.memory_bytes)
            held.callback(os.close, self._own)
            if self._launch.locked:
                locked = LockedMemory(self._own, self._launch.memory_bytes)
                held.callback(locked.close)
                await locked.lock()
        except OSError as error:
            raise HostError(f"vm {self._id}: cannot prepare QEMU's memory: {error}") from error
        except HostError as error:
            raise error.during(f"vm {self._id}: AllowOvercommit false") from error
        return self._own

    async def record(self, *, kept: bool = True) -> MachineRecord:
        """Return what its state goes with. If the record is to be `kept`, the files that it was booted from are read, but for those whose
        digests are known of what it goes on from.

        Raises:
            HostError: a file cannot be read.
        """
        make = partial(record_of, self._launch, self._facts, self._known, memory_in_state=self._own < 0, kept=kept)
        try:
            return await finish(asyncio.to_thread(make), within=None)
        except OSError as error:
            raise HostError(f"{error.filename}: cannot be read: {error.strerror}") from error

    async def save(self, options: OptionsLCOW, monitor: Monitor, transports: Sequence[Transport], keeping: Keeping) -> None:
        """Save the machine, which stands still when this returns. When it fails it runs on. `keeping` knows what it has been given.

        Raises:
            Exists: there is a template of its id.
            Unsupported: it was not made for it, or has what its clones could not have.
            StateError: it is being given something.
            HostError, QmpError, ConnectionLost, DeadlineExceeded: it cannot be saved.
        """
        if not self._launch.savable or self._own < 0:
            raise Unsupported(f"vm {self._id}: was not made to be saved as a template", hint="is_template=True")
        await finish(keeping.prepare("saved as a template", self._known), within=None)
        machine = await self.record()
        with await finish(asyncio.to_thread(Draft, self._folder, self._id), within=None) as draft:
            async with _standing_still(monitor, transports):
                await _carry_out(monitor, "migrate", draft.state, memory=False)
                manifest, contents = await self._kept(options, machine, monitor, keeping)
                await finish(asyncio.to_thread(_write, draft, self._own, contents, manifest), within=None)

    async def sleep(self, path: Path, options: OptionsLCOW, monitor: Monitor, transports: Sequence[Transport], keeping: Keeping) -> None:
        """Save the machine to a file, from which it goes on itself; it stands still when this returns. When it fails it runs on.

        Raises:
            Exists: there is a file of this name.
            Unsupported: it has what could not be in it.
            StateError: it is being given something.
            HostError, QmpError, ConnectionLost, DeadlineExceeded: it cannot be saved.
        """
        await finish(keeping.prepare("saved", self._known), within=None)
        machine = await self.record()
        with await finish(asyncio.to_thread(Bed, path, machine.memory_bytes), within=None) as bed:
            async with _standing_still(monitor, transports):
                await _carry_out(monitor, "migrate", bed.fd, memory=machine.memory_in_state)
                manifest, contents = await self._kept(options, machine, monitor, keeping)
                disks = {content.name: content.fd for content in contents}
                await finish(asyncio.to_thread(bed.keep, manifest, self._own, disks), within=None)

    async def _kept(
        self, options: OptionsLCOW, machine: MachineRecord, monitor: Monitor, keeping: Keeping
    ) -> tuple[Manifest, tuple[Content, ...]]:
        """Say what is saved, but for the digest of its state, and of which files its disks are to be copied; as `Keeping.kept`."""
        devices, contents = await keeping.kept(monitor)
        whole = structs.replace(machine, devices=devices)
        return Manifest(id=self._id, created=time.time(), options=options, machine=whole, state_sha256=""), contents

    async def snapshot(self, monitor: Monitor, transports: Sequence[Transport], keeping: Keeping) -> Snapshot:
        """Return a copy of the machine, which runs on; it stood still meanwhile, whether this fails or not.

        Raises:
            Unsupported: it has what others could not have.
            StateError: it is being given something.
            HostError, QmpError, ConnectionLost, DeadlineExceeded: it cannot be copied.
        """
        await finish(keeping.prepare("forked", by_content=False), within=None)
        snapshot = Snapshot.in_memory(f"vm {self._id}", await self.record(kept=False), self._layout.scratch)
        try:
            await finish(asyncio.to_thread(snapshot.reserve, self._own), within=None)
            async with _standing_still(monitor, transports) as still:
                await _carry_out(monitor, "migrate", snapshot.state, memory=snapshot.machine.memory_in_state)
                devices, contents = await keeping.kept(monitor)
                await finish(asyncio.to_thread(snapshot.fill, self._own, devices, contents), within=None)
                await finish(still.go_on(), within=_GO_ON)
        except BaseException:
            snapshot.close()
            raise
        snapshot.pause = still.pause
        return snapshot

    async def go_on(self, monitor: Monitor, hotplug: Hotplug) -> bool:
        """Give a QEMU that waits for it what the original had been given, let it read the state of the devices, and run: the original
        stood still when it was saved. False, and nothing happens, when the machine boots.

        Raises:
            HostError: the original's memory cannot be copied.
            QmpError, ConnectionLost, DeadlineExceeded: it cannot; one that ends says why at its end.
        """
        if self._origin is None:
            return False
        await self._origin.inherited.plug_in(hotplug)
        await (self._origin.fill(self._own) if self._launch.own_memory else self._origin.whole())
        await _carry_out(monitor, "migrate-incoming", self._origin.state, memory=self._origin.machine.memory_in_state)
        self.close()
        await monitor.execute("cont")
        return True

    def close(self) -> None:
        """Let go of what it goes on from. A second call does nothing."""
        if self._origin is not None:
            self._origin.close()


@final
class _Still:
    """A guest that stands still, with nothing under way between it and its host, since `stop`. `pause` is how long it did, in seconds."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._quiet = monitor, list[Transport]()
        self._since, self.pause = 0.0, 0.0

    async def stop(self, transports: Sequence[Transport]) -> None:
        for transport in transports:
            await transport.quiesce()
            self._quiet.append(transport)
        self._since = time.perf_counter()
        await self._monitor.execute("stop")

    async def go_on(self) -> None:
        """Let it run, and its host speak to it. A second call does nothing more."""
        try:
            while await _run_state(self._monitor) == _FINISHING:  # QEMU says that a migration is over a moment before it is
                pass
            await self._monitor.execute("cont")
            self.pause = time.perf_counter() - self._since
        finally:
            while self._quiet:
                self._quiet.pop().speak()


@asynccontextmanager
async def _standing_still(monitor: Monitor, transports: Sequence[Transport]) -> AsyncIterator[_Still]:
    """Let the guest stand still. When what is done meanwhile fails, it goes on.

    Raises:
        DeadlineExceeded: its agent did not fall silent.
        QmpError, ConnectionLost: QEMU does not stop it, or has ended.
    """
    still = _Still(monitor)
    try:
        await still.stop(transports)
        yield still
    except BaseException:
        with suppress(UtilityVMError, TimeoutError):  # why it was not saved says more
            await finish(still.go_on(), within=_GO_ON)
        raise


def _write(draft: Draft, memory: int, contents: Sequence[Content], manifest: Manifest) -> None:
    try:
        copy_sparse(memory, draft.memory, dig=True)
        for content in contents:
            copy_sparse(content.fd, draft.content(content.name))
        state = os.pread(draft.state, os.fstat(draft.state).st_size, 0)
    except OSError as error:
        raise HostError(f"template {manifest.id}: cannot be written: {error.strerror}") from error
    draft.keep(structs.replace(manifest, state_sha256=hashlib.sha256(state).hexdigest()))


async def _carry_out(monitor: Monitor, command: str, fd: int, *, memory: bool) -> None:
    """Let QEMU write the state of its devices to a descriptor, or read it, with its `memory` or without, and wait until it has."""
    capabilities = {"x-ignore-shared": not memory, "events": True}  # shared memory is left where it is
    named = [{"capability": name, "state": state} for name, state in capabilities.items()]
    await monitor.execute("migrate-set-capabilities", {"capabilities": named})
    if memory:
        await monitor.execute("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
    await monitor.execute("getfd", {"fdname": _STATE}, fds=[fd])
    await monitor.execute(command, {"uri": f"fd:{_STATE}"})
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            while (told := await _status(monitor))["status"] not in _OVER:
                await monitor.migration_changed.wait()
    except TimeoutError as error:
        raise DeadlineExceeded(f"QEMU did not {command} its devices' state within {ANSWER_TIMEOUT:g} s") from error
    if told["status"] != _DONE:
        why = printable(told.get("error-desc", told["status"]))
        raise QmpError(f"QEMU did not {command} its devices' state: {why}", error_class=told["status"], command=command)


async def _run_state(monitor: Monitor) -> object:
    told = await monitor.execute("query-status")
    return told.get("status") if isinstance(told, dict) else None


async def _status(monitor: Monitor) -> dict[str, str]:
    monitor.migration_changed.clear()
    told = await monitor.execute("query-migrate")
    known = told if isinstance(told, dict) else {}
    return {"status": "", **{name: value for name, value in known.items() if isinstance(value, str)}}
