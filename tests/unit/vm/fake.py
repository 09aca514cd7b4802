"""A UtilityVM whose machine and guest are fakes: planned and composed as a real one, and every byte between them passes as there."""

import socket
from collections.abc import Callable, Mapping

from utilityvm.compute.ports import ExitStatus, Grants
from utilityvm.devices.ports import Look
from utilityvm.guest.logs import OutputHandler
from utilityvm.kit.ids import VmId
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.store.layout import Layout
from utilityvm.testing.compute import FakeComputeService
from utilityvm.testing.guest import Body, FakeGuest, Program
from utilityvm.vm.compose import create_planned
from utilityvm.vm.look import look
from utilityvm.vm.uvm import UtilityVM

NAME = VmId("fake")
FACTS = Facts(
    platform=Platform.QEMU,
    path_flavour=PathFlavour.POSIX,
    processors=Counted(logical_processors=4),
    files_present=frozenset({"/boot/kernel", "/boot/initrd.img"}),
)


async def echo(guest: FakeGuest, program: Program) -> int:
    """Say the arguments, and end with their number."""
    if program.stdout is not None:
        await guest.write(program.stdout, " ".join(program.argv[1:]).encode())
    return len(program.argv) - 1


def service(
    programs: Mapping[str, Body] | None = None,
    *,
    log: bytes = b"",
    tamper: Callable[[socket.socket, bytes], bytes] | None = None,
    answers: Mapping[int, bytes] | None = None,
    windows: bool = False,
    ours: bool = False,
) -> tuple[FakeComputeService, list[FakeGuest]]:
    """Return a compute service whose machines have a guest with `programs`, and the list to which each guest is added."""
    guests: list[FakeGuest] = []

    async def body(sock: socket.socket) -> ExitStatus | None:
        change = None if tamper is None else lambda data: tamper(sock, data)
        guest = FakeGuest(sock, programs or {"echo": echo}, tamper=change, log=log, answers=answers, windows=windows, ours=ours)
        guests.append(guest)
        await guest.run()
        return None

    return FakeComputeService(body), guests


async def create(
    of: FakeComputeService,
    *,
    output_handler: OutputHandler | None = None,
    facts: Facts = FACTS,
    grants: Grants | None = None,
    looking: Look = look,
    layout: Callable[[], Layout] = Layout.of_user,
    **options: object,
) -> UtilityVM:
    """Create a VM on a fake service; `options` are those of `OptionsLCOW`."""
    wish = OptionsLCOW(boot_files_path="/boot", **options)  # type: ignore[arg-type]
    return await create_planned(wish, NAME, facts, of, output_handler, grants, looking, layout)
