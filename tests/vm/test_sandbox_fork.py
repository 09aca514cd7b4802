"""Sandboxes are forked: programs, files and disks go on in children, each on its own, with and without await."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

import utilityvm.sync
from utilityvm import Sandbox, StateError, Unsupported, UserNetwork
from utilityvm.boot.files import BootFiles
from utilityvm.sync.loop import loop_thread

from .running import LIMIT, line, of_vm

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = {"memory_size_in_mb": 256, "processor_count": 1}


@pytest.fixture(scope="module", autouse=True)
def _loop() -> None:
    """Begin the twin's loop thread, which stays, before descriptors are counted."""
    loop_thread()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["as it is", "forkable"])
async def box(request: pytest.FixtureRequest, boot_files: BootFiles) -> AsyncIterator[Sandbox]:
    options = {"boot_files_path": str(boot_files.folder), **SMALL}
    async with Sandbox("busybox", options=options, forkable=request.param) as box:
        await box.run("sh", "-c", "echo before >/when")
        yield box


async def test_children_have_its_files_and_programs_and_what_they_write_is_their_own(box: Sandbox) -> None:
    await box.run("sh", "-c", "sleep 1000 >/dev/null 2>&1 </dev/null &")
    first, second = await box.fork(2)
    async with asyncio.timeout(LIMIT), first, second:
        for each, word in ((first, "first"), (second, "second"), (box, "parent")):
            assert (await each.run("sh", "-c", f"cat /when; echo {word} >>/when; cat /when; pidof sleep | wc -w")).text == (
                f"before\nbefore\n{word}\n1\n"
            )
        assert await first.files.read("/when") == b"before\nfirst\n"
        assert first.stages["pause"] > 0
        numbers = {(await each.run("head", "-c", "16", "/dev/urandom")).stdout for each in (first, second, box)}
        assert len(numbers) == 3
    await box.files.write("/when", "before\n")


async def test_its_own_programs_go_on_with_their_streams(box: Sandbox) -> None:
    process = await box.start("sh", "-c", "while read word; do echo got $word; done", stdin=True)
    (child,) = await box.fork()
    async with asyncio.timeout(LIMIT), child:
        await process.stdin.write(b"one\n")
        assert await line(process) == b"got one\n"
    await process.kill()
    await process.wait()
    await process.close()


async def test_a_child_is_forked_and_outlives_its_parent(box: Sandbox) -> None:
    (child,) = await box.fork(forkable=True)
    async with child:
        await child.run("sh", "-c", "echo child >>/when")
        (grandchild,) = await child.fork()
    async with asyncio.timeout(LIMIT), grandchild:
        assert (await grandchild.run("cat", "/when")).text == "before\nchild\n"


async def test_a_child_that_is_never_opened_is_closed_and_nothing_is_left_of_it(box: Sandbox) -> None:
    (child,) = await box.fork()
    with pytest.raises(StateError):
        await child.run("true")
    await child.close()
    (opened,) = await box.fork()
    async with opened:
        name = opened.vm.id
        assert of_vm(name)
    assert of_vm(name) == []


async def test_what_no_child_could_have_is_refused_and_it_goes_on(boot_files: BootFiles, tmp_path: Path) -> None:
    options, shared = {"boot_files_path": str(boot_files.folder), **SMALL}, f"{tmp_path}:/shared"
    for more, said in (
        ({"network": UserNetwork()}, "cannot be forked: it has the network adapter"),
        ({"volumes": (shared,)}, "or forked: it has .* the bind "),
    ):
        async with Sandbox("busybox", options=options, **more) as box:
            with pytest.raises(Unsupported, match=said):
                await box.fork()
            assert (await box.run("true")).exit_code == 0


async def test_before_it_is_open_and_afterwards_it_is_refused(boot_files: BootFiles) -> None:
    box = Sandbox("busybox", options={"boot_files_path": str(boot_files.folder), **SMALL})
    with pytest.raises(StateError, match="cannot fork while new"):
        await box.fork()
    await box.close()
    with pytest.raises(StateError, match="cannot fork while closed"):
        await box.fork()


@pytest.mark.usefixtures("box")
async def test_the_twin_without_await_gives_twins(boot_files: BootFiles) -> None:
    def use() -> list[str]:
        with utilityvm.sync.Sandbox("busybox", options={"boot_files_path": str(boot_files.folder), **SMALL}) as box:
            (child,) = box.fork()
            with child:
                assert isinstance(child, utilityvm.sync.Sandbox)
                return child.run("echo", "child").text.split()

    assert await asyncio.to_thread(use) == ["child"]
