"""Containers of a template go on in each clone, which takes them over: on two clones of one template."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from utilityvm import (
    Exists,
    GuestError,
    NotFound,
    StateError,
    Template,
    Unsupported,
    UtilityVM,
    create_lcow,
    default_options_lcow,
    open_template,
    restore,
)
from utilityvm.boot.files import BootFiles
from utilityvm.containers.life import ContainerState
from utilityvm.images.store import ImageStore
from utilityvm.kit.ids import new_guid
from utilityvm.wire.gcs import NotificationType

from .containers import spec
from .running import LIMIT, Done, ended, line, sh
from .small import a_template_vm, let_others_in, two_clones

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERS = "echo ready; while read word; do echo $word; done; exit 7"


@dataclass(frozen=True)
class Warmed:
    """A template, and processes in it by what they are."""

    template: Template
    pids: Mapping[str, int]


@pytest.fixture(scope="module")
def layers(boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """The layers of the image that comes with the boot files, where QEMU's user may read them."""
    folder = let_others_in(tmp_path_factory.mktemp("clone-container"))
    return ImageStore(folder / "store", {"busybox": boot_files.folder / "busybox.tar"}).get("busybox").layers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warmed(boot_files: BootFiles, layers: Sequence[Path]) -> AsyncIterator[Warmed]:
    """A template with a container in each state."""
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        program = spec("sh", "-c", ANSWERS)
        runs, stands, alone = [await vm.create_container(name, program, layers=layers) for name in ("runs", "stands", "alone")]
        pids = {}
        for one in (runs, stands, alone):
            first = await one.start(stdin=True)
            assert await line(first) == b"ready\n"
        other = await runs.exec(["sh", "-c", f"stty -echo; {ANSWERS}"], stdin=True, console_size=(24, 80))
        assert await line(other) == b"ready\r\n"
        pids["other"] = other.pid
        assert (await runs.run(["sh", "-c", "echo template >/file"])).exit_code == 0
        await stands.pause()
        await vm.create_container("made", program, layers=layers)
        over = await vm.create_container("over", spec("sh", "-c", "exit 3"), layers=layers)
        await over.start()
        assert (await over.wait(timeout=LIMIT)).exit_code == 3
        await vm.save_as_template()
    found = Warmed(await open_template(vm.id), pids)
    yield found
    await found.template.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(warmed: Warmed) -> AsyncIterator[Sequence[UtilityVM]]:
    """Two clones of it, that run."""
    async with two_clones(warmed.template) as clones:
        yield clones


async def test_a_container_that_runs_is_taken_over_with_its_processes_and_ends_in_each_clone_by_itself(
    pair: Sequence[UtilityVM], warmed: Warmed
) -> None:
    for word, vm in zip((b"one", b"two"), pair, strict=True):
        container = await vm.clone_container("runs")
        assert container.state is ContainerState.RUNNING
        assert container in vm.containers
        first, other = await container.attach(), await container.attach(warmed.pids["other"])
        assert first.pid == container.pid
        for process, end in ((first, b"\n"), (other, b"\r\n")):
            await process.stdin.write(word + b"\n")
            assert await line(process) == word + end
        assert (await container.run(["sh", "-c", "cat /file; echo mine >/file"])).stdout == b"template\n"
        stats = await container.stats()
        assert stats.pids is not None
        assert stats.pids.current >= 2
        with pytest.raises(StateError):
            await container.delete()
        await other.stdin.write(b"\x04")
        assert await ended(other) == Done(7, b"")
        await first.stdin.write_eof()
        assert await ended(first) == Done(7, b"")
        done = await container.wait(timeout=LIMIT)
        assert (done.exit_code, done.how) == (7, NotificationType.UNEXPECTED_EXIT)
        before = len(vm.scsi.disks)
        await container.delete()
        assert len(vm.scsi.disks) == before - 1
        assert (await sh(vm, "test -e /run/gcs/c/runs")).code != 0
        async with await vm.create_container("runs", spec("true"), scratch_size_in_bytes=None, layers=(await of_image(vm))) as again:
            assert (await again.start()) is not None


async def of_image(vm: UtilityVM) -> Sequence[str]:
    """The host's paths of the layers that the VM has."""
    return [device.host_path for device in vm.vpmem.devices]


async def test_a_container_that_is_paused_goes_on_when_it_is_resumed(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        container = await vm.clone_container("stands")
        assert container.state is ContainerState.PAUSED
        first = await container.attach()
        await first.stdin.write(b"word\n")
        await container.resume()
        assert await line(first) == b"word\n"
        await container.close()
        assert container not in vm.containers
        assert (await container.wait()).exit_code == 137


async def test_a_container_that_was_made_and_not_started_is_started_in_each_clone(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        async with await vm.clone_container("made") as container:
            assert container.state is ContainerState.CREATED
            with pytest.raises(StateError):
                await container.attach()
            first = await container.start(stdin=True)
            assert await line(first) == b"ready\n"


async def test_a_container_that_had_ended_tells_how_and_is_deleted(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        async with await vm.clone_container("over") as container:
            assert container.state is ContainerState.STOPPED
            done = await container.wait(timeout=LIMIT)
            assert (done.exit_code, done.how) == (3, NotificationType.UNEXPECTED_EXIT)
            with pytest.raises((GuestError, StateError)):
                await container.attach()


async def test_a_container_whose_streams_nobody_takes_is_signalled_and_ends(pair: Sequence[UtilityVM]) -> None:
    for vm in pair:
        container = await vm.clone_container("alone")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(container.wait(timeout=LIMIT))
            assert await container.kill()
        done = waiting.result()
        assert (done.exit_code, done.how) == (137, NotificationType.FORCED_EXIT)
        await container.delete()


async def test_what_is_not_there_is_taken_over_already_or_would_be_made_twice_is_refused_by_name(warmed: Warmed) -> None:
    async with await warmed.template.clone() as vm:
        await vm.start()
        with pytest.raises(NotFound, match="no VM with a container nobody"):
            await vm.clone_container("nobody")
        waiting = await vm.detached_processes()
        assert {one.container_id for one in waiting} == {"runs", "stands", "alone"}
        assert {one.pid for one in waiting if one.terminal} == {warmed.pids["other"]}
        with pytest.raises(Exists, match="runs"):
            await vm.create_container("runs", spec("true"))
        container = await vm.clone_container("runs")
        with pytest.raises(NotFound, match="runs"):
            await vm.clone_container("runs")
        await container.close()
        assert [one.id for one in vm.containers] == []


async def test_a_fork_of_a_clone_has_the_containers_that_were_taken_over_and_those_that_were_not(warmed: Warmed) -> None:
    async with await warmed.template.clone() as vm:
        await vm.start()
        own = await (await vm.clone_container("runs")).attach()
        await own.stdin.write(b"before\n")
        assert await line(own) == b"before\n"
        async with await vm.fork() as forked:
            (child,) = forked.children
            await child.start()
            for name in ("runs", "alone"):
                process = await (await child.clone_container(name)).attach()
                await process.stdin.write(b"child\n")
                assert await line(process) == b"child\n"
        await own.stdin.write(b"after\n")
        assert await line(own) == b"after\n"


async def test_a_container_with_what_no_clone_could_have_is_refused_by_name_and_goes_on(
    boot_files: BootFiles, layers: Sequence[Path], tmp_path: Path
) -> None:
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        program = spec(
            "sh", "-c", ANSWERS, mounts=[{"destination": "/shared", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}]
        )
        container = await vm.create_container("shares", program, layers=layers)
        first = await container.start(stdin=True)
        for what in (vm.save_as_template, vm.fork):
            with pytest.raises(Unsupported, match=f"the container shares the bind {tmp_path}"):
                await what()
        assert await line(first) == b"ready\n"
        await container.close()


async def test_a_vm_that_slept_takes_its_programs_and_containers_over(
    boot_files: BootFiles, layers: Sequence[Path], tmp_path: Path
) -> None:
    given = {"boot_files_path": str(boot_files.folder), "memory_size_in_mb": 256, "processor_count": 1}
    async with await create_lcow(default_options_lcow(id=f"test-{new_guid()}", **given)) as vm:
        await vm.start()
        own = await vm.create_process(["sh", "-c", ANSWERS], stdin=True)
        first = await (await vm.create_container("c", spec("sh", "-c", ANSWERS), layers=layers)).start(stdin=True)
        for process in (own, first):
            assert await line(process) == b"ready\n"
        await vm.save(tmp_path / "saved")
    async with await restore(tmp_path / "saved") as vm:
        await vm.start()
        container = await vm.clone_container("c")
        for process in (await vm.attach_process(own.pid), await container.attach()):
            await process.stdin.write(b"awake\n")
            assert await line(process) == b"awake\n"
            await process.stdin.write_eof()
            assert await ended(process) == Done(7, b"")
        assert (await container.wait(timeout=LIMIT)).exit_code == 7
        await container.delete()
        assert vm.scsi.disks == ()
