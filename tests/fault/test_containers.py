"""A fault at each step of making and giving back a container: the error is usable, nothing is left, and the same can be asked again."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.unit.containers.rig import LAYERS, SIZE, a_vm, nothing_is_left, spec
from tests.unit.containers.rig import layout_of as places
from tests.unit.devices.fake import World

from utilityvm import Container, ContainerExit
from utilityvm.containers.life import ContainerState
from utilityvm.containers.volumes import lock_volume, make_volume
from utilityvm.kit.errors import GuestError, HostError, UtilityVMError

T = TypeVar("T")

MOUNTS = [
    {"destination": "/a", "type": "bind", "source": "/src"},
    {"destination": "/v", "type": "volume", "source": "data", "options": ["size=32m"]},
    {"destination": "/d", "type": "virtual-disk", "source": "/disk"},
]
STEPS = 10
"""More requests than the guest, or the host, gets for one container."""


async def make(world: World) -> Container:
    return await world.vm.create_container("c", spec(mounts=MOUNTS), layers=LAYERS, scratch_size_in_bytes=SIZE)


async def tried(work: Awaitable[T]) -> T | UtilityVMError:
    """What comes of it: what it returns, or how it fails."""
    try:
        return await work
    except UtilityVMError as error:
        return error


class Refuse:
    """Refuses the request of that number, and none after it."""

    def __init__(self, number: int, refusal: Any) -> None:  # noqa: ANN401 (an error, a text of the guest)
        self.left, self.refusal = number, refusal

    def __call__(self, what: str) -> Any:  # noqa: ANN401
        if "Remove" in what:
            return None
        self.left -= 1
        return self.refusal if self.left == 0 else None


async def works(world: World, folder: Path) -> None:
    """A whole life, after which nothing is left, no lock either."""
    world.host, world.guest = lambda _: None, lambda _: None
    async with await make(world) as container:
        await container.start()
        assert (await container.run(["say", "x"])).stdout == b"x"
    nothing_is_left(world)
    lock_volume(places(folder), "data", read_only=False).close()


@pytest.mark.parametrize("half", ["host", "guest"])
@pytest.mark.parametrize("step", range(1, STEPS))
async def test_a_creation_that_is_refused_at_any_step_leaves_nothing(tmp_path: Path, half: str, step: int) -> None:
    async with a_vm(tmp_path) as world:
        refuse = Refuse(step, HostError("no") if half == "host" else "no")
        setattr(world, half, refuse)
        made = await tried(make(world))
        if isinstance(made, UtilityVMError):
            assert isinstance(made, HostError if half == "host" else GuestError)
            assert made.message.endswith("no"), made.message
            nothing_is_left(world)
        else:
            assert refuse.left > 0, "a refusal passed for success"
            await made.close()
        await works(world, tmp_path)


@pytest.mark.parametrize("turns", [*range(0, 40, 3), *range(40, 200, 20)])
async def test_a_creation_that_is_given_up_at_any_moment_leaves_nothing(tmp_path: Path, turns: int) -> None:
    async with a_vm(tmp_path) as world:
        await works(world, tmp_path)  # the file systems that are copied are there

        def guest(what: str) -> str | None:
            return "busy" if what == "guest Remove CombinedLayers" and world.agent.containers else None

        world.guest = guest
        making = asyncio.ensure_future(make(world))  # noqa: TID251 (awaited below)
        for _ in range(turns):
            await asyncio.sleep(0)
        making.cancel()
        await asyncio.wait([making])
        if not making.cancelled():
            await making.result().close()
        nothing_is_left(world)
        unions = [what for what in world.asked if what.endswith("CombinedLayers")]
        assert len([what for what in unions if "Remove" in what]) >= len([what for what in unions if "Add" in what])
        await works(world, tmp_path)


async def test_a_creation_that_is_given_up_while_the_guest_makes_it_is_undone_in_the_order_that_the_guest_needs(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        busy = list[str]()

        def guest(what: str) -> None:
            if "Remove" in what and world.agent.containers:
                busy.append(what)

        world.guest = guest
        making = asyncio.ensure_future(make(world))  # noqa: TID251 (awaited below)
        while not world.agent.containers:
            await asyncio.sleep(0)
        making.cancel()
        await asyncio.wait([making])
        assert making.cancelled()
        assert busy == [], "what a container stands on was taken away under it"
        nothing_is_left(world)
        await works(world, tmp_path)


@pytest.mark.parametrize("half", ["host", "guest"])
@pytest.mark.parametrize("step", range(1, STEPS))
async def test_a_machine_that_ends_at_any_step_of_a_creation_is_told_and_no_lock_is_left(tmp_path: Path, half: str, step: int) -> None:
    async with a_vm(tmp_path) as world:
        count = Refuse(step, refusal=True)

        def end(what: str) -> None:
            if count(what):
                world.end()

        setattr(world, half, end)
        made = await tried(make(world))
        if not isinstance(made, UtilityVMError):
            world.end()
            await made.close()
            assert made.state is ContainerState.DELETED
    await make_volume(places(tmp_path), "data", SIZE)  # if it came to that
    lock_volume(places(tmp_path), "data", read_only=False).close()


@pytest.mark.parametrize("half", ["host", "guest"])
@pytest.mark.parametrize("step", range(1, 8))
async def test_what_is_not_given_back_at_any_step_is_told_stays_visible_and_goes_with_the_next_close(
    tmp_path: Path, half: str, step: int
) -> None:
    async with a_vm(tmp_path) as world:
        container = await make(world)
        await container.start()
        removals = 0

        def busy(what: str) -> Any:  # noqa: ANN401
            nonlocal removals
            removals += "Remove" in what
            return (HostError("busy") if half == "host" else "busy") if "Remove" in what and removals == step else None

        setattr(world, half, busy)
        failure = await tried(container.close())
        await container.settled()
        assert container.released == (removals < step), "a refusal passed for success"
        if failure is not None:
            assert failure.message.startswith("vm fake: container c: failed to release one or more container resources: ")
            assert failure.message.endswith("busy")
            assert not container.released
        if not container.released:
            await container.close()
            await container.settled()
        assert container.released
        await works(world, tmp_path)


async def test_a_guest_that_hangs_over_a_container_holds_nobody_who_closes_its_vm(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await make(world)
        world.hung.clear()
        hanging = asyncio.ensure_future(world.vm.create_container("d", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE))  # noqa: TID251
        while sum("VPMem" in what for what in world.asked) < 2:
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            await world.vm.close()
        with pytest.raises(UtilityVMError):
            await hanging


async def test_an_end_whose_words_make_no_sense_is_an_end(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await make(world)
        await container.start()
        world.agent.containers["c"].oom_kills = "many"  # type: ignore[assignment]
        await container.kill()
        told = await container.wait()
        assert isinstance(told, ContainerExit)
        assert (told.exit_code, told.oom_killed) == (137, False)
        await container.close()
