"""Running virtual machines are forked: the parent goes on, its children go on from the same moment, each on its own."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from utilityvm import (
    ConnectionLost,
    Forked,
    HostError,
    Process,
    Unsupported,
    UtilityVM,
    open_template,
)
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.memory import Room
from utilityvm.kit.ids import new_guid
from utilityvm.store.layout import Layout

from .disks import ext4
from .killed import killed_at
from .once import once
from .running import LIMIT, line, of_vm, run, sh
from .small import a_vm

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[False, True], ids=["as it is", "forkable"])
async def parent(request: pytest.FixtureRequest, boot_files: BootFiles) -> AsyncIterator[UtilityVM]:
    """A VM in which a program counts, and a file says what was so before the fork."""
    async with await a_vm(boot_files, forkable=request.param) as vm:
        await vm.start()
        assert (await sh(vm, "echo before >/tmp/when; sleep 9999 >/dev/null 2>&1 </dev/null &")).code == 0
        yield vm


async def all_started(forked: Forked) -> tuple[UtilityVM, ...]:
    async with asyncio.timeout(LIMIT):
        for child in forked.children:
            await child.start()
    return forked.children


async def ask(process: Process, word: str) -> bytes:
    await process.stdin.write(f"{word}\n".encode())
    return await line(process)


async def test_the_parents_programs_and_streams_go_on_over_a_fork(parent: UtilityVM) -> None:
    answering = await parent.create_process(["sh", "-c", "while read w; do echo got $w; done"], stdin=True)
    counting = await parent.create_process(["sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done"])
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        read = group.create_task(counting.stdout.read())
        assert await ask(answering, "one") == b"got one\n"
        async with await parent.fork():
            assert await ask(answering, "two") == b"got two\n"
            assert await read == b"".join(b"%d\n" % number for number in range(1, 3001)), "output was lost or came twice"
        assert await counting.wait() == 0
        await answering.stdin.write_eof()
        assert await answering.wait() == 0
    for process in (answering, counting):
        await process.close()


async def test_children_go_on_from_the_parents_programs_and_files_each_with_names_and_numbers_of_its_own(parent: UtilityVM) -> None:
    async with await parent.fork(2) as forked:
        children = await all_started(forked)
        for child in children:
            assert (await sh(child, "cat /tmp/when")).out == b"before\n"
            assert (await sh(child, "pidof sleep")).out == (await sh(parent, "pidof sleep")).out
            assert (await sh(child, "hostname")).out.decode().strip() == child.id
            assert abs(float((await sh(child, "date +%s")).out) - time.time()) < 3
        numbers = {(await sh(vm, "head -c 16 /dev/urandom | md5sum")).out for vm in (*children, parent)}
        assert len(numbers) == 3, "random numbers are the same"


async def test_what_one_writes_none_of_the_others_sees(parent: UtilityVM) -> None:
    """Memory that was there before the fork is written to in each, all over, and freed."""
    write = "dd if=/dev/zero bs=1M count=20 2>/dev/null | tr '\\0' {} | dd of=/tmp/big conv=notrunc 2>/dev/null; md5sum </tmp/big"
    of_before = (await sh(parent, write.format("p"))).out
    async with await parent.fork(2) as forked:
        first, second = await all_started(forked)
        of_first = (await sh(first, write.format("a") + "; echo 3 >/proc/sys/vm/drop_caches")).out
        of_parent = (await sh(parent, write.format("b"))).out
        assert [(await sh(vm, "md5sum </tmp/big")).out for vm in (first, second, parent)] == [of_first, of_before, of_parent]
    assert len({of_first, of_before, of_parent}) == 3
    await sh(parent, "rm /tmp/big")


async def test_children_are_forked_again_and_so_are_theirs(parent: UtilityVM) -> None:
    async with await parent.fork() as forked:
        (child,) = await all_started(forked)
        await sh(child, "echo child >>/tmp/when")
        async with await child.fork() as again:
            (grandchild,) = await all_started(again)
            assert again.technique == "migrate", "what a child has changed only QEMU has"
            await sh(child, "echo later >>/tmp/when")
            assert (await sh(grandchild, "cat /tmp/when")).out == b"before\nchild\n"
            async with await grandchild.fork() as last:
                (youngest,) = await all_started(last)
                assert last.technique == "copy", "its memory came to it as a whole"
                assert (await sh(youngest, "cat /tmp/when; pidof sleep")).out.split()[:2] == [b"before", b"child"]


async def test_forkable_children_have_memory_of_their_own_that_is_copied(parent: UtilityVM) -> None:
    async with await parent.fork(forkable=True) as forked:
        (child,) = await all_started(forked)
        async with await child.fork() as again:
            assert again.technique == "copy"
            (grandchild,) = await all_started(again)
            assert (await sh(grandchild, "cat /tmp/when")).out == b"before\n"


async def test_children_outlive_their_parent(boot_files: BootFiles) -> None:
    async with await a_vm(boot_files) as vm:
        await vm.start()
        forked = await vm.fork()
    async with forked:
        (child,) = await all_started(forked)
        assert (await run(child, "true")).code == 0


async def test_the_guest_of_a_forkable_vm_learns_of_the_fork(boot_files: BootFiles) -> None:
    async with await a_vm(boot_files, forkable=True) as vm:
        await vm.start()
        async with await vm.fork() as forked:
            (child,) = await all_started(forked)
            assert (await sh(child, "dmesg | grep -c 'crng reseeded due to virtual machine fork'")).out == b"1\n"


async def test_a_forkable_clone_of_a_template_is_forked_by_a_copy_and_changes_nothing_of_it(boot_files: BootFiles) -> None:
    async with await a_vm(boot_files, is_template=True, id=f"test-{new_guid()}") as vm:
        await vm.start()
        await sh(vm, "echo template >/tmp/when")
        config = await vm.save_as_template()
    template = await open_template(config.uvm_id)
    try:
        for forkable, technique in ((True, "copy"), (False, "migrate")):
            async with await template.clone(forkable=forkable) as clone:
                await clone.start()
                await sh(clone, "echo clone >>/tmp/when")
                async with await clone.fork() as forked:
                    assert forked.technique == technique
                    (child,) = await all_started(forked)
                    assert (await sh(child, "cat /tmp/when")).out == b"template\nclone\n"
    finally:
        await template.remove()


async def test_what_a_vm_has_been_given_is_named_when_it_cannot_be_forked_and_it_runs_on(parent: UtilityVM, tmp_path: Path) -> None:
    with ext4(tmp_path / "a.img").open("rb") as file:
        nameless = f"/proc/self/fd/{file.fileno()}"
        await parent.scsi.add(nameless, "/run/disk", read_only=True)
        with pytest.raises(Unsupported, match=f"vm {parent.id}: cannot be forked: it has {nameless} .*, a file without a name"):
            await parent.fork()
        await parent.scsi.remove(nameless)
    async with await parent.fork():
        assert (await run(parent, "true")).code == 0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_fork_that_fails_or_is_given_up_leaves_nothing_and_the_parent_running(
    parent: UtilityVM, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()

    def full(_room: Room, _source: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Room, "copy", full)
        with pytest.raises(HostError, match=f"vm {parent.id}: cannot be copied: No space left on device"):
            await parent.fork()
    assert (await run(parent, "true")).code == 0
    for seconds in (0.0, 0.001, 0.01, 0.05, 0.1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds), await parent.fork(2):
                await asyncio.sleep(LIMIT)
        assert (await run(parent, "true")).code == 0
    assert descriptors() == before


async def test_a_parent_whose_qemu_ends_while_it_is_copied_is_told(boot_files: BootFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await a_vm(boot_files) as vm:
        await vm.start()

        def killing(_room: Room, _source: int) -> None:
            for pid in of_vm(vm.id):
                os.kill(pid, signal.SIGKILL)

        monkeypatch.setattr(Room, "copy", killing)
        with pytest.raises((ConnectionLost, HostError)):
            await vm.fork()
        assert (await vm.wait()).error("vm") is not None


OWNER = """
from utilityvm import create_lcow, default_options_lcow
from utilityvm.compute.qemu import snapshot

name, boot_files = sys.argv[1:]

around(snapshot.Room, "copy")
around(snapshot, "seal")

async def main():
    options = default_options_lcow(id=name, boot_files_path=boot_files, memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        async with await vm.fork(2) as forked:
            kill("created")
            for child in forked.children:
                await child.start()
            kill("started")

asyncio.run(main())
"""


@pytest.mark.parametrize("step", [*once("before copy", "after copy", "after seal", "created"), "started"])
async def test_an_owner_killed_at_any_step_of_a_fork_leaves_nothing(boot_files: BootFiles, step: str) -> None:
    name, templates = f"test-{new_guid()}", Layout.of_user().templates
    there = sorted(templates.iterdir()) if templates.is_dir() else []
    await killed_at(step, OWNER, name, str(boot_files.folder))
    assert (sorted(templates.iterdir()) if templates.is_dir() else []) == there
