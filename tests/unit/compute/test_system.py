"""A machine whose QEMU does not do as it is told: each wait has its end."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import final

import pytest

from utilityvm.compute.ports import ExitHow
from utilityvm.compute.qemu import system
from utilityvm.compute.qemu.assign import Shown
from utilityvm.compute.qemu.cgroup import Cgroups
from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.lower import Launch
from utilityvm.compute.qemu.processors import Processors
from utilityvm.compute.qemu.saving import Saving
from utilityvm.compute.qemu.share import Share
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.child import Tail
from utilityvm.kit.enclosure import OPEN, Enclosure
from utilityvm.kit.errors import DeadlineExceeded
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import ComputeSystem
from utilityvm.store.layout import Layout

FACTS = HostFacts(qemu="qemu", version=(7, 2, 0), accel=Accel.TCG, reason="test", processors=1, address_bits=40)


@final
class Undying:
    """A `kit.child.Child` that holds on to its descriptors, and that no signal ends until `die`."""

    def __init__(self, argv: Sequence[str], *, pass_fds: Sequence[int] = (), enclosure: Enclosure = OPEN) -> None:
        self.argv, self.enclosure, self.pid, self.code, self.killed = argv, enclosure, 4711, None, 0
        self.output = Tail(100)
        self.held = [os.dup(fd) for fd in pass_fds]
        self._gone = asyncio.Event()

    def kill(self) -> None:
        self.killed += 1

    def die(self) -> None:
        self._gone.set()

    def let_go(self) -> None:
        while self.held:
            os.close(self.held.pop())

    async def wait(self) -> int:
        await self._gone.wait()
        return -9


@contextlib.asynccontextmanager
async def machine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[QemuMachine, Undying]]:
    monkeypatch.setattr(system, "Child", Undying)
    monkeypatch.setattr(system, "CLEANUP", 0.05)
    launch = Launch(argv=("qemu",), memory_bytes=4096, files={}, console_path="", share=Share(count=1), rules={})
    nowhere = Path("/nowhere")
    processors = Processors(VmId("x"), launch.share, Cgroups())
    saving = Saving(VmId("x"), launch, FACTS, nowhere, Layout(nowhere, nowhere, nowhere))
    made = QemuMachine(VmId("x"), ComputeSystem(owner="o"), launch, FACTS, processors, Shown(), saving)
    async with asyncio.timeout(10):
        await made.start()
        child = made._child
        assert isinstance(child, Undying)
        try:
            yield made, child
        finally:
            child.die()
            child.let_go()
            await made.close()


async def test_a_qemu_that_survives_its_kill_is_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async with machine(monkeypatch) as (made, child):
        with pytest.raises(DeadlineExceeded, match=r"vm x: QEMU \(process 4711\) was killed and is still there after 0\.05 s"):
            await made.terminate()
        assert child.killed == 1


async def test_a_machine_ends_though_somebody_holds_its_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "_LAST_WORDS", 0.05)
    async with machine(monkeypatch) as (made, child):
        child.die()
        status = await made.wait()
        assert status.how is ExitHow.KILLED


async def test_a_qemu_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "SWITCH", 0.05)
    async with machine(monkeypatch) as (made, _):
        with pytest.raises(DeadlineExceeded, match=r"vm x: QEMU did not pause its guest within 0\.05 s"):
            await made.pause()
