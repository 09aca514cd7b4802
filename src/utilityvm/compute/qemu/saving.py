"""A running machine is saved as a template: its guest stands still between two packets, QEMU writes the state of the devices to a
descriptor, and what the guest has in its memory is copied. A clone's QEMU reads that state back.
"""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, final

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.monitor import ANSWER_TIMEOUT, Monitor
from utilityvm.compute.qemu.origin import Origin, record_of
from utilityvm.guest.transport import Transport
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import DeadlineExceeded, HostError, QmpError, Unsupported, UtilityVMError
from utilityvm.kit.files import copy_sparse
from utilityvm.kit.ids import VmId
from utilityvm.kit.text import printable
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store.templates import Draft, MachineRecord, Manifest

_GO_ON: Final = 5.0
_STATE: Final = "state"
_DONE: Final = "completed"
_OVER: Final = (_DONE, "failed", "cancelled")
_CAPABILITIES: Final = [
    {"capability": "x-ignore-shared", "state": True},  # the guest's memory is left where it is
    {"capability": "events", "state": True},
]


@final
class Saving:
    """What one machine, `system_id`, has to do with templates: `folder` is where it is saved, `origin` what it goes on from, which is
    closed with it.
    """

    def __init__(self, system_id: VmId, launch: Launch, facts: HostFacts, folder: Path, origin: Origin | None = None) -> None:
        self._id, self._launch, self._facts, self._folder, self._origin = system_id, launch, facts, folder, origin
        self.memory = -1 if origin is None else origin.memory
        """A descriptor of the guest's memory: the one to begin with, or, once it is set, the one to be saved."""

    async def record(self) -> MachineRecord:
        """Return what a template of the machine goes with. Reads all of the files that it was booted from.

        Raises:
            Unsupported: it was not made to be saved.
            HostError: a file cannot be read.
        """
        if not self._launch.savable:
            raise Unsupported(f"vm {self._id}: was not made to be saved as a template", hint="is_template=True")
        try:
            return await finish(asyncio.to_thread(record_of, self._launch, self._facts), within=None)
        except OSError as error:
            raise HostError(f"{error.filename}: cannot be read: {error.strerror}") from error

    async def save(
        self, options: OptionsLCOW, machine: MachineRecord, monitor: Monitor, transports: Sequence[Transport], attached: Sequence[str]
    ) -> None:
        """Save the machine, which stands still when this returns. When it fails it runs on. `attached` is what it has been given.

        Raises:
            Exists: there is a template of its id.
            Unsupported: it has what its clones could not have.
            HostError, QmpError, ConnectionLost, DeadlineExceeded: it cannot be saved.
        """
        if attached:
            hint = "remove what can be removed, and save then; persistent memory stays in a machine, a SCSI disk does not"
            raise Unsupported(f"vm {self._id}: cannot be saved as a template: it has {', '.join(attached)}", hint=hint)
        with await finish(asyncio.to_thread(Draft, self._folder, self._id), within=None) as draft:
            async with _standing_still(monitor, transports):
                await _carry_out(monitor, "migrate", draft.state)
                await finish(asyncio.to_thread(_write, draft, self.memory, self._id, options, machine), within=None)

    async def go_on(self, monitor: Monitor) -> bool:
        """Let a QEMU that waits for it read the state of the devices, and run: the template stood still when it was saved. False, and
        nothing happens, when the machine boots.

        Raises:
            HostError: the template's memory cannot be copied.
            QmpError, ConnectionLost, DeadlineExceeded: it cannot; one that ends says why at its end.
        """
        if self._origin is None:
            return False
        await self._origin.whole()
        await _carry_out(monitor, "migrate-incoming", self._origin.state)
        self.close()
        await monitor.execute("cont")
        return True

    def close(self) -> None:
        """Let go of what it goes on from. A second call does nothing."""
        if self._origin is not None:
            self._origin.close()


@asynccontextmanager
async def _standing_still(monitor: Monitor, transports: Sequence[Transport]) -> AsyncIterator[None]:
    """Let the guest stand still, with nothing under way between it and its host. When what is done meanwhile fails, it goes on.

    Raises:
        DeadlineExceeded: its agent did not fall silent.
        QmpError, ConnectionLost: QEMU does not stop it, or has ended.
    """
    quiet: list[Transport] = []
    try:
        for transport in transports:
            await transport.quiesce()
            quiet.append(transport)
        await monitor.execute("stop")
        yield
    except BaseException:
        await finish(_go_on(monitor, quiet), within=_GO_ON)
        raise


async def _go_on(monitor: Monitor, transports: Sequence[Transport]) -> None:
    with suppress(UtilityVMError):  # why it was not saved says more
        await monitor.execute("cont")
    for transport in transports:
        transport.speak()


def _write(draft: Draft, memory: int, template_id: VmId, options: OptionsLCOW, machine: MachineRecord) -> None:
    try:
        copy_sparse(memory, draft.memory, dig=True)
        state = os.pread(draft.state, os.fstat(draft.state).st_size, 0)
    except OSError as error:
        raise HostError(f"template {template_id}: cannot be written: {error.strerror}") from error
    digest = hashlib.sha256(state).hexdigest()
    draft.keep(Manifest(id=template_id, created=time.time(), options=options, machine=machine, state_sha256=digest))


async def _carry_out(monitor: Monitor, command: str, fd: int) -> None:
    """Let QEMU write the state of its devices to a descriptor, or read it, and wait until it has."""
    await monitor.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
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


async def _status(monitor: Monitor) -> dict[str, str]:
    monitor.migration_changed.clear()
    told = await monitor.execute("query-migrate")
    known = told if isinstance(told, dict) else {}
    return {"status": "", **{name: value for name, value in known.items() if isinstance(value, str)}}
