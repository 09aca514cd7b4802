"""A pool over fakes: its VMs are real ones of ours on fake machines, which the tests let fail."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from tests.unit.vm import fake
from utilityvm.compute.life import State
from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.options.network import NetworkWish
from utilityvm.testing.compute import FakeMachine
from utilityvm.testing.guest import FakeGuest
from utilityvm.vm.uvm import UtilityVM

PLENTY: Final = "MemTotal: 1000 kB\nMemAvailable: 900 kB\n"
SHORT: Final = "MemTotal: 1000 kB\nMemAvailable: 90 kB\n"


class Clones:
    """A `Source`: `fails` are what the next clones fail with, None for none; while `gate` is closed none is finished."""

    id = "tea"

    def __init__(self) -> None:
        self.of, self.guests = fake.service()
        self.fails: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.wishes: list[Mapping[str, object]] = []

    async def clone(
        self, vm_id: str = "", *, require_kvm: bool = False, require_jail: bool = False, network: NetworkWish | None = None
    ) -> UtilityVM:
        self.wishes.append({"vm_id": vm_id, "require_kvm": require_kvm, "require_jail": require_jail, "network": network})
        await self.gate.wait()
        failure = self.fails.pop(0) if self.fails else None
        if failure is not None:
            raise failure
        return await fake.create(self.of)

    @property
    def machines(self) -> list[FakeMachine]:
        return self.of.machines

    def machine(self, vm: UtilityVM) -> FakeMachine:
        return next(machine for machine in self.machines if machine is vm._system)

    def guest(self, vm: UtilityVM) -> FakeGuest:
        return self.guests[self.machines.index(self.machine(vm))]

    @property
    def left(self) -> int:
        """How many machines are not closed."""
        return sum(machine.state is not State.CLOSED for machine in self.machines)


def die(machine: FakeMachine) -> None:
    """Let the machine end as if its hypervisor had been killed."""
    machine.end(ExitStatus(ExitHow.FAILED, "killed"))


def refusing(text: str) -> Callable[[object], "asyncio.Future[str | None]"]:
    """Return what lets a guest refuse every change."""

    def refuse(_request: object) -> "asyncio.Future[str | None]":
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        answer.set_result(text)
        return answer

    return refuse


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)
