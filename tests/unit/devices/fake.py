"""A running VM on fakes, seen from its tables of devices: what host and guest were asked for, in which order, and with what they fail."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import structs

from tests.unit.vm.fake import FACTS, create, service
from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.devices.ports import Seen
from utilityvm.kit.errors import NotFound, UtilityVMError
from utilityvm.plan.facts import Platform
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.layout import Layout
from utilityvm.testing.compute import FakeMachine
from utilityvm.testing.files import FakeHostFiles
from utilityvm.testing.guest import Body, FakeGuest
from utilityvm.vm.uvm import UtilityVM

Answer = Callable[[str], Any]


class World:
    """`asked` is what host and guest were asked for: ``host Add VirtualMachine/...``, ``guest Remove MappedVirtualDisk``.

    `host` and `guest` answer: None lets it pass, an error (a text of the guest) refuses it. `guest` may take its time.
    """

    vm: UtilityVM
    machine: FakeMachine
    agent: FakeGuest

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.files = FakeHostFiles()
        self.seen: dict[str, Seen] = {}
        self.host: Callable[[str], UtilityVMError | None] = lambda _: None
        self.guest: Callable[[str], str | None] = lambda _: None
        self.hung = asyncio.Event()
        self.hung.set()

    def look(self, path: str) -> Seen:
        if path not in self.seen:
            raise NotFound(f"{path}: no such file or folder")
        return self.seen[path]

    def requests(self) -> list[Any]:
        """What the host was asked for, as JSON has it."""
        return [msgspec.json.decode(msgspec.json.encode(request)) for request in self.machine.requests]

    def guest_requests(self) -> list[Any]:
        """What the guest was asked for."""
        return [request for _, request in self.agent.modified]

    def _host(self, request: ModifySettingRequest) -> UtilityVMError | None:
        what = f"host {request.request_type} {request.resource_path}"
        self.asked.append(what)
        return self.host(what)

    async def _guest(self, request: Any) -> str | None:  # noqa: ANN401 (JSON)
        what = f"guest {request['RequestType']} {request['ResourceType']}"
        self.asked.append(what)
        await self.hung.wait()
        return self.guest(what)

    def end(self) -> None:
        """Let the machine end, as a hypervisor that is killed."""
        self.machine.end(ExitStatus(ExitHow.KILLED, code=9))


async def no_namespaces() -> bool:
    """What a guest says that is told of no network."""
    return False


@asynccontextmanager
async def running(
    platform: Platform = Platform.QEMU,
    within: float = 60,
    *,
    programs: Mapping[str, Body] | None = None,
    ours: bool = True,
    layout: Layout | None = None,
    **options: Any,  # noqa: ANN401 (options of a VM)
) -> AsyncIterator[World]:
    """A running VM of that platform, for at most `within` seconds, whose disks are made in `layout`."""
    world, (of, guests) = World(), service(programs, ours=ours)
    facts = structs.replace(FACTS, platform=platform)
    grants = world.files if platform is Platform.HYPERV else None
    places = Layout.of_user if layout is None else lambda: layout
    created = create(of, facts=facts, grants=grants, looking=world.look, layout=places, **options)
    async with asyncio.timeout(within), await created as vm:
        await vm.start()
        world.vm, world.machine, world.agent = vm, of.machines[0], guests[0]
        world.machine.refuses, world.agent.modifying = world._host, world._guest
        yield world
