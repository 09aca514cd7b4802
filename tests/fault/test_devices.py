"""A fault at each step of attaching and detaching: the error is usable, the table is consistent, and what can be repeated is repeated."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.clock import Clock
from tests.unit.devices.fake import World, running

from utilityvm.devices.ports import Seen
from utilityvm.guest.bridge import CALL_TIMEOUT
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, GuestError, HostError, StateError, UtilityVMError
from utilityvm.plan.facts import Platform
from utilityvm.vm.uvm import UtilityVM

SETTLED = {"attached", "half detached", "reserved"}


@dataclass(frozen=True)
class Kind:
    """A kind of device: how it is attached and detached, what its table has, and whether guest and host are asked when it leaves."""

    add: Callable[[UtilityVM], Awaitable[Any]]
    remove: Callable[[UtilityVM, Any], Awaitable[None]]
    table: Callable[[UtilityVM], Sequence[Any]]
    platform: Platform = Platform.QEMU
    asks_guest: bool = True
    asks_host: bool = True


KINDS = {
    "a SCSI disk": Kind(lambda vm: vm.scsi.add("/a", "/mnt"), lambda vm, _: vm.scsi.remove("/a"), lambda vm: vm.scsi.disks),
    "a SCSI disk on Hyper-V": Kind(
        lambda vm: vm.scsi.add("/a", "/mnt"), lambda vm, _: vm.scsi.remove("/a"), lambda vm: vm.scsi.disks, Platform.HYPERV
    ),
    "persistent memory": Kind(
        lambda vm: vm.vpmem.add("/a"), lambda vm, _: vm.vpmem.remove("/a"), lambda vm: vm.vpmem.devices, asks_host=False
    ),
    "persistent memory on Hyper-V": Kind(
        lambda vm: vm.vpmem.add("/a"), lambda vm, _: vm.vpmem.remove("/a"), lambda vm: vm.vpmem.devices, Platform.HYPERV
    ),
    "a 9p share": Kind(lambda vm: vm.plan9.add("/d", "/mnt"), lambda vm, got: vm.plan9.remove(got), lambda vm: vm.plan9.shares),
    "a device of the host": Kind(
        lambda vm: vm.vpci.assign("0000:01:00.0"),
        lambda vm, _: vm.vpci.remove("0000:01:00.0"),
        lambda vm: vm.vpci.devices,
        asks_guest=False,
    ),
}


def every(kinds: dict[str, Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds.values(), ids=kinds)


EVERY = every(KINDS)
THAT_ASK_THE_GUEST = every({name: kind for name, kind in KINDS.items() if kind.asks_guest})
THAT_ASK_THE_HOST = every({name: kind for name, kind in KINDS.items() if kind.asks_host})


def prepare(world: World) -> None:
    world.seen |= {"/a": Seen(folder=False, size=1, identity=1), "/d": Seen(folder=True)}


def states(world: World, kind: Kind) -> set[str]:
    return {one.state for one in kind.table(world.vm)}


def heal(world: World) -> None:
    world.host, world.guest = lambda _: None, lambda _: None


async def works(world: World, kind: Kind) -> None:
    """A whole round of attaching and detaching, after which nothing is left."""
    heal(world)
    for left in [one for one in kind.table(world.vm) if one.state == "half detached"]:
        await kind.remove(world.vm, left)
    await kind.remove(world.vm, await kind.add(world.vm))
    assert states(world, kind) <= {"reserved"}


async def after_its_deadline(world: World, work: Awaitable[Any], request: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Await what waits for a guest that hangs, as if its time had passed."""
    task = asyncio.ensure_future(work)  # noqa: TID251 (awaited below)
    while not any(what.startswith(f"guest {request}") for what in world.asked):
        await asyncio.sleep(0)
    await Clock(monkeypatch).forward(CALL_TIMEOUT + 1)
    await task


# -- attaching ----------------------------------------------------------------------------------------------------------


@EVERY
async def test_what_the_host_refuses_is_not_there_and_may_be_asked_for_again(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        world.host = lambda _: HostError("no such device")
        with pytest.raises(HostError, match="no such device$"):
            await kind.add(world.vm)
        assert not kind.table(world.vm)
        assert not [what for what in world.asked if what.startswith("guest")], "the guest heard of it"
        await works(world, kind)


@EVERY
async def test_what_the_guest_refuses_is_taken_back_and_may_be_asked_for_again(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        world.guest = lambda _: "no such device"
        with pytest.raises(GuestError, match="no such device$"):
            await kind.add(world.vm)
        assert states(world, kind) <= {"reserved"}
        await works(world, kind)


@EVERY
async def test_what_neither_takes_stays_visible_until_it_is_cleared(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        world.guest = lambda _: "no such device"
        world.host = lambda what: HostError("busy") if "Remove" in what else None
        with pytest.raises(GuestError, match="no such device$"):
            await kind.add(world.vm)
        assert states(world, kind) == ({"half detached"} if kind.asks_host else {"reserved"})
        await works(world, kind)


@EVERY
async def test_a_guest_that_hangs_while_attaching_ends_in_a_deadline(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(kind.platform, within=3600) as world:
        prepare(world)
        world.hung.clear()
        with pytest.raises(DeadlineExceeded, match="no answer to ModifySettings within 300 s"):
            await after_its_deadline(world, kind.add(world.vm), "Add", monkeypatch)
        assert states(world, kind) <= SETTLED


@EVERY
@pytest.mark.parametrize("half", ["host", "guest"])
async def test_a_machine_that_ends_while_attaching_is_told_and_nothing_moves_any_more(kind: Kind, half: str) -> None:
    async with running(kind.platform) as world:
        prepare(world)

        def host(_: str) -> UtilityVMError | None:
            world.end()
            return ConnectionLost("vm fake: the machine ended")

        if half == "host":
            world.host = host
        else:
            world.hung.clear()
        adding = asyncio.ensure_future(kind.add(world.vm))  # noqa: TID251 (awaited below)
        while not any(what.startswith(half) for what in world.asked):
            await asyncio.sleep(0)
        world.end()
        with pytest.raises(ConnectionLost):
            await adding
        assert states(world, kind) <= SETTLED
        with pytest.raises((StateError, ConnectionLost)):
            await kind.add(world.vm)


@EVERY
@pytest.mark.parametrize("half", ["host", "guest"])
async def test_a_caller_that_gives_up_attaching_leaves_nothing(kind: Kind, half: str) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        world.hung.clear()
        adding = asyncio.ensure_future(kind.add(world.vm))  # noqa: TID251 (awaited below)
        while not any(what.startswith(half) for what in world.asked):
            await asyncio.sleep(0)
        adding.cancel()
        await asyncio.sleep(0)
        world.hung.set()
        await asyncio.wait([adding])
        assert adding.cancelled()
        assert states(world, kind) <= {"reserved"}
        await works(world, kind)


# -- detaching ----------------------------------------------------------------------------------------------------------


@THAT_ASK_THE_GUEST
async def test_what_the_guest_does_not_give_up_stays_and_may_be_asked_for_again(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        got = await kind.add(world.vm)
        world.guest = lambda _: "in use"
        for _ in range(2):
            with pytest.raises(GuestError, match="in use$"):
                await kind.remove(world.vm, got)
            assert states(world, kind) == {"attached"}
        assert not [what for what in world.asked if what.startswith("host Remove")], "the host took it from under the guest"
        heal(world)
        await kind.remove(world.vm, got)
        await works(world, kind)


@THAT_ASK_THE_HOST
async def test_what_the_host_does_not_give_up_is_asked_of_the_host_again(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        got = await kind.add(world.vm)
        before = len(world.asked)
        world.host = lambda _: HostError("busy")
        for _ in range(2):
            with pytest.raises(HostError, match="busy$"):
                await kind.remove(world.vm, got)
            assert states(world, kind) == ({"half detached"} if kind.asks_guest else {"attached"})
        heal(world)
        await kind.remove(world.vm, got)
        asked = [what.split()[0] for what in world.asked[before:]]
        assert asked == [*(["guest"] if kind.asks_guest else []), "host", "host", "host"]
        await works(world, kind)


@THAT_ASK_THE_GUEST
async def test_a_guest_that_hangs_while_detaching_ends_in_a_deadline(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(kind.platform, within=3600) as world:
        prepare(world)
        got = await kind.add(world.vm)
        world.hung.clear()
        with pytest.raises(DeadlineExceeded, match="no answer to ModifySettings within 300 s"):
            await after_its_deadline(world, kind.remove(world.vm, got), "Remove", monkeypatch)
        assert states(world, kind) == {"attached"}


@EVERY
async def test_a_machine_that_ends_while_detaching_is_told(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        got = await kind.add(world.vm)

        def host(_: str) -> UtilityVMError | None:
            world.end()
            return ConnectionLost("vm fake: the machine ended")

        world.host = host
        world.hung.clear()
        removing = asyncio.ensure_future(kind.remove(world.vm, got))  # noqa: TID251 (awaited below)
        while not any("Remove" in what for what in world.asked):
            await asyncio.sleep(0)
        world.end()
        with pytest.raises(ConnectionLost):
            await removing
        assert states(world, kind) <= SETTLED
        with pytest.raises((StateError, ConnectionLost)):
            await kind.remove(world.vm, got)


@EVERY
async def test_a_caller_that_gives_up_detaching_is_obeyed_all_the_same(kind: Kind) -> None:
    async with running(kind.platform) as world:
        prepare(world)
        got = await kind.add(world.vm)
        world.hung.clear()
        removing = asyncio.ensure_future(kind.remove(world.vm, got))  # noqa: TID251 (awaited below)
        while not any("Remove" in what for what in world.asked):
            await asyncio.sleep(0)
        removing.cancel()
        await asyncio.sleep(0)
        world.hung.set()
        await asyncio.wait([removing])
        assert states(world, kind) <= {"reserved"}
        await works(world, kind)
