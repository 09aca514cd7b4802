"""A running VM on fakes in which containers are made: its programs, its images, and what host and guest were asked for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.unit.devices.fake import World, running
from utilityvm.devices.ports import Seen
from utilityvm.plan.facts import Platform
from utilityvm.store.layout import Layout
from utilityvm.testing.guest import FakeGuest, Program

LAYERS = ("/images/top.erofs", "/images/base.erofs")
SIZE = 32 << 20


async def forever(_guest: FakeGuest, _program: Program) -> int:
    """Run until it is killed."""
    await asyncio.Event().wait()
    return 0


async def say(guest: FakeGuest, program: Program) -> int:
    """Say the arguments, and end with their number."""
    if program.stdout is not None:
        await guest.write(program.stdout, " ".join(program.argv[1:]).encode())
    return len(program.argv) - 1


async def cat(guest: FakeGuest, program: Program) -> int:
    """Say what it is told."""
    assert program.stdin is not None
    assert program.stdout is not None
    while data := await program.stdin.read():
        await guest.write(program.stdout, data)
    return 0


async def three(guest: FakeGuest, program: Program) -> int:
    """Say hello, and end with 3."""
    if program.stdout is not None:
        await guest.write(program.stdout, b"hello")
    return 3


PROGRAMS = {"three": three, "forever": forever, "say": say, "cat": cat}


def spec(*argv: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    """A specification as JSON has it."""
    process = {"args": list(argv or ("forever",)), "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["A=b"]} | more.pop("process", {})
    return {"ociVersion": "1.0.2", "process": process, "root": {"path": "/there"}} | more


def layout_of(folder: Path) -> Layout:
    """Places below a folder of the test's."""
    return Layout(folder / "state", folder / "cache", folder / "boot")


@asynccontextmanager
async def a_vm(folder: Path, platform: Platform = Platform.QEMU, *, ours: bool = True, **options: Any) -> AsyncIterator[World]:  # noqa: ANN401
    """A running VM in which containers can be made."""
    options = {"programs": PROGRAMS} | options
    async with running(platform, ours=ours, layout=layout_of(folder), **options) as world:
        world.seen |= {layer: Seen(folder=False, size=2 << 20, identity=layer) for layer in LAYERS}
        world.seen |= {"/src": Seen(folder=True), "/src/file": Seen(folder=False, size=1, identity=1)}
        yield world


def config(world: World, container_id: str) -> Any:  # noqa: ANN401 (JSON)
    """The document that the guest has of a container."""
    return world.agent.containers[container_id].config


async def some_turns(number: int = 20) -> None:
    """Let other tasks have a few turns."""
    for _ in range(number):
        await asyncio.sleep(0)


def nothing_is_left(world: World) -> None:
    """Neither the guest nor the tables have anything of a container."""
    assert world.agent.containers == {}
    assert world.vm.containers == ()
    assert world.vm.scsi.disks == ()
    assert world.vm.plan9.shares == ()
    assert {device.state for device in world.vm.vpmem.devices} <= {"reserved"}
