"""Templates of real virtual machines, and clones that go on from them."""

import asyncio
import errno
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs

from utilityvm import (
    ConnectionLost,
    DeadlineExceeded,
    Exists,
    HostError,
    NotFound,
    OptionsLCOW,
    StateError,
    Template,
    Unsupported,
    UtilityVM,
    create_lcow,
    list_templates,
    open_template,
)
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu import saving
from utilityvm.images.store import ImageStore
from utilityvm.kit.files import copy_sparse, digest
from utilityvm.kit.ids import new_guid
from utilityvm.store import templates as store
from utilityvm.store.layout import Layout
from utilityvm.vm import compose

from .containers import spec
from .disks import ext4
from .killed import killed_at
from .once import once
from .running import LIMIT, of_vm, run, sh
from .small import OLD, a_template_vm

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def template(boot_files: BootFiles) -> AsyncIterator[Template]:
    """A template in which a program runs on, and whose clock is wrong."""
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        assert (await sh(vm, f"{OLD}; echo warm >/tmp/warm; sleep 9999 >/dev/null 2>&1 </dev/null &")).code == 0
        config = await vm.save_as_template()
        assert vm.state == "stopped"
        assert vm.exit_error is None
    made = await open_template(config.uvm_id)
    assert made.config == config
    yield made
    await made.remove()


async def started(template: Template) -> UtilityVM:
    vm = await template.clone()
    try:
        await vm.start()
    except BaseException:
        await vm.close()
        raise
    return vm


async def test_a_clone_goes_on_from_its_template(template: Template) -> None:
    async with await started(template) as vm:
        said = (await sh(vm, "cat /tmp/warm; pidof sleep; dmesg | grep -c 'crng reseeded due to virtual machine fork'")).out.split()
        assert [said[0], said[2]] == [b"warm", b"1"]
        assert int(said[1]) > 1
        assert (await vm.properties()).state == "Running"
        assert (await run(vm, "true")).code == 0


async def test_its_clock_is_set(template: Template) -> None:
    async with await started(template) as vm:
        told = float((await sh(vm, "date +%s")).out)
        assert abs(told - time.time()) < 3


async def test_two_clones_side_by_side_write_all_over_their_memory_and_change_nothing_of_their_template(template: Template) -> None:
    """A file in memory, as large as fits, and freed again; what the clones read of the page cache stays the same too."""
    before = digest(template.folder / "memory")
    vms = [await started(template) for _ in range(2)]
    try:
        fill = "mount -t tmpfs -o size=150m t /mnt; tr '\\0' {} </dev/zero | dd of=/mnt/x bs=1M count=110 iflag=fullblock; "
        fill += "head -c 1 /mnt/x; rm /mnt/x"
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            filling = [group.create_task(sh(vm, fill.format(word))) for vm, word in zip(vms, "ab", strict=True)]
        assert [task.result().out for task in filling] == [b"a", b"b"]
        for vm in vms:
            await sh(vm, "echo 3 >/proc/sys/vm/drop_caches")
        other = await started(template)
        vms.append(other)
        assert (await sh(other, "md5sum </bin/busybox")).out == (await sh(vms[0], "md5sum </bin/busybox")).out
        seals = {(await sh(vm, "head -c 16 /dev/urandom | md5sum")).out for vm in vms}
        assert len(seals) == len(vms), "two clones have the same random numbers"
        assert digests_of_memory(template) == {before}
    finally:
        for vm in vms:
            await vm.close()
    assert digest(template.folder / "memory") == before


def digests_of_memory(template: Template) -> set[str]:
    """What is in a template's memory on disk, and in the copies of it that this process's clones have below theirs."""
    copies = [Path(f"/proc/self/fd/{kept.fd}") for kept in compose._MEMORIES._kept.values()]
    return {digest(path) for path in (template.folder / "memory", *copies)}


async def test_a_clone_takes_memory_and_gives_it_back_and_changes_nothing_of_its_template(template: Template) -> None:
    async with await started(template) as vm:
        before = digests_of_memory(template)
        await vm.update_memory(512 << 20)
        filled = "mount -t tmpfs -o size=300m t /mnt && dd if=/dev/zero of=/mnt/x bs=1M count=280 && rm /mnt/x && umount /mnt"
        assert (await sh(vm, f"{filled} && echo 3 >/proc/sys/vm/drop_caches")).code == 0
        await vm.update_memory(256 << 20)
        assert await vm.get_assigned_memory_in_bytes() == 256 << 20
        assert digests_of_memory(template) == before
        assert len(before) == 1


async def test_the_memory_of_a_template_is_there_once_for_all_clones_of_a_process_and_cannot_be_written(template: Template) -> None:
    async with await started(template), await started(template):
        (kept,) = compose._MEMORIES._kept.values()
        with pytest.raises(PermissionError):
            os.pwrite(kept.fd, b"x", 0)


async def test_disks_come_to_a_clone_and_go_as_in_a_vm_that_was_booted(template: Template, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    async with await started(template) as vm:
        await vm.scsi.add(str(image), "/run/disk")
        assert (await sh(vm, "echo written >/run/disk/f; sync; cat /run/disk/f")).out == b"written\n"
        await vm.scsi.remove(str(image))
        assert (await sh(vm, "ls /run/disk")).code != 0


@pytest.fixture
def layers(boot_files: BootFiles, tmp_path: Path) -> Sequence[Path]:
    """The layers of the image that comes with the boot files."""
    tmp_path.chmod(0o755)
    return ImageStore(tmp_path, {"busybox": boot_files.folder / "busybox.tar"}).get("busybox").layers


async def test_a_container_runs_in_a_clone(template: Template, layers: Sequence[Path]) -> None:
    async with await started(template) as vm, await vm.create_container("c", spec("sleep", "1000"), layers=layers) as container:
        await container.start()
        done = await container.run(["sh", "-c", "echo written >/file; cat /file /proc/1/comm"])
        assert (done.exit_code, done.stdout) == (0, b"written\nsleep\n")


async def test_a_clone_can_be_paused_and_cannot_become_a_template(template: Template) -> None:
    async with await started(template) as vm:
        await vm.pause()
        await vm.resume()
        with pytest.raises(Unsupported, match="was not created to become a template"):
            await vm.save_as_template()
        assert (await run(vm, "true")).code == 0


async def test_there_is_one_template_of_an_id(template: Template, boot_files: BootFiles) -> None:
    assert template.id in [each.id for each in await list_templates()]
    with pytest.raises(Exists, match=f"template {template.id}: there is one"):
        await a_template_vm(boot_files, template.id)


@pytest.mark.once
async def test_a_clone_of_another_machine_kernel_or_qemu_is_refused_with_the_reason(
    template: Template, boot_files: BootFiles, tmp_path: Path
) -> None:
    options = template.clone_options()
    with pytest.raises(Unsupported, match=r"is of another machine: -m 512M.*, the template's is -m 256M"):
        await clone_as_if(options, memory_size_in_mb=512)
    for name in ("vmlinux", "initrd.img"):
        (tmp_path / name).symlink_to(boot_files.folder / name)
    async with await create_lcow(as_if(options, boot_files_path=str(tmp_path))) as vm:
        await vm.start()
    (tmp_path / "initrd.img").unlink()
    (tmp_path / "initrd.img").write_bytes((boot_files.folder / "initrd.img").read_bytes() + b"\0")
    with pytest.raises(Unsupported, match="was made with another initrd than"):
        await clone_as_if(options, boot_files_path=str(tmp_path))
    manifest = template.folder / store.MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"qemu": "', '"qemu": "9'))
    try:
        with pytest.raises(Unsupported, match=r"was made with QEMU 9\d+\.\d+\.\d+, and here is \d"):
            await template.clone()
    finally:
        manifest.write_text(text)


def as_if(options: OptionsLCOW, **changed: object) -> OptionsLCOW:
    """Return a clone's options that say the same as its template's, which they are not."""
    assert options.template_config is not None
    theirs = structs.replace(options.template_config.create_options, **changed)
    return structs.replace(options, template_config=structs.replace(options.template_config, create_options=theirs), **changed)


async def clone_as_if(options: OptionsLCOW, **changed: object) -> None:
    async with await create_lcow(as_if(options, **changed)):
        pytest.fail("it was created")


async def test_what_a_vm_has_been_given_is_named_when_it_cannot_be_saved_and_it_runs_on(boot_files: BootFiles) -> None:
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        with pytest.raises(StateError, match="cannot save as a template while created"):
            await vm.save_as_template()
        await vm.start()
        await vm.update_memory(512 << 20)
        with pytest.raises(Unsupported, match="cannot be saved as a template: it has .*memory"):
            await vm.save_as_template()
        assert vm.state == "running"
        assert (await run(vm, "true")).code == 0
    with pytest.raises(NotFound):
        await open_template(name)


@pytest.mark.once
async def test_an_agent_that_does_not_answer_is_not_saved_and_goes_on(boot_files: BootFiles) -> None:
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        machine = vm._system
        monkey = machine._transport._wire.quiesce  # type: ignore[attr-defined]
        machine._transport._wire.quiesce = lambda: monkey()[:0]  # type: ignore[attr-defined]  # as if it had never come
        with pytest.raises(Exception, match="did not fall silent within 1 s"):
            await vm.save_as_template()
        assert (await run(vm, "true")).code == 0
        machine._transport._wire.quiesce = monkey  # type: ignore[attr-defined]
        machine._transport._wire._asked = 0  # type: ignore[attr-defined]
        await vm.save_as_template()
    await (await open_template(name)).remove()


async def test_programs_that_talk_all_the_time_are_saved_between_two_packets(boot_files: BootFiles) -> None:
    """One is listened to, one is not, and one is talked to; none of it reaches the clone."""
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        heard, unheard = [await vm.create_process(["yes"]) for _ in range(2)]
        told = await vm.create_process(["sh", "-c", "cat >/dev/null"], stdin=True)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(until_the_end(heard.stdout.read))
            talking = group.create_task(until_the_end(lambda _: told.stdin.write(bytes(1 << 16))))
            assert await unheard.stdout.read(1) == b"y"
            await vm.save_as_template()
        assert listening.result() > 0
        assert talking.result() > 0
    template = await open_template(name)
    for _ in range(2):
        async with await started(template) as vm:
            assert (await sh(vm, "seq 20000 | tail -1")).out == b"20000\n"
    await template.remove()


async def until_the_end(do: Callable[[int], Awaitable[object]]) -> int:
    """Do it again and again until the VM has ended, and return how often it was done."""
    for times in count():
        try:
            await do(1 << 16)
        except (ConnectionLost, BrokenPipeError):
            return times
    raise AssertionError


@pytest.mark.once
async def test_a_disk_that_is_full_is_told_and_the_vm_runs_on(boot_files: BootFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: int, _target: int, *, dig: bool) -> None:  # noqa: ARG001 (as the real one)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        with monkeypatch.context() as patch:
            patch.setattr(saving, "copy_sparse", full)
            with pytest.raises(HostError, match=f"template {name}: cannot be written: No space left on device"):
                await vm.save_as_template()
        assert unfinished() == []
        assert (await run(vm, "true")).code == 0
        await vm.save_as_template()
    await (await open_template(name)).remove()


@pytest.mark.once
async def test_a_save_that_is_given_up_is_carried_out(boot_files: BootFiles) -> None:
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        async with asyncio.TaskGroup() as group:
            work = group.create_task(vm.save_as_template())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            work.cancel()
        assert work.cancelled()
        assert (await vm.wait()).error("vm") is None
    await (await open_template(name)).remove()


@pytest.mark.once
async def test_a_qemu_that_ends_while_it_is_saved_leaves_nothing(boot_files: BootFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()

        class Killing(store.Draft):  # type: ignore[misc]  # final, but for this test
            def __init__(self, folder: Path, template_id: str) -> None:
                super().__init__(folder, template_id)
                for pid in of_vm(name):
                    with suppress(ProcessLookupError):  # it has gone with the one before
                        os.kill(pid, signal.SIGKILL)

        monkeypatch.setattr(saving, "Draft", Killing)
        with pytest.raises((ConnectionLost, DeadlineExceeded, HostError)):
            await vm.save_as_template()
        assert unfinished() == []
        assert (await vm.wait()).error("vm") is not None
    with pytest.raises(NotFound):
        await open_template(name)


async def test_a_state_that_qemu_does_not_understand_is_told_in_its_words(template: Template) -> None:
    other = f"test-{new_guid()}"
    with store.opened(template.folder.parent, template.id) as whole, store.Draft(template.folder.parent, other) as draft:
        copy_sparse(whole.memory, draft.memory)
        state = os.pread(whole.state, 1000, 0)
        os.pwrite(draft.state, state, 0)
        digest_of_state = hashlib.sha256(state).hexdigest()
        draft.keep(structs.replace(whole.manifest, id=other, state_sha256=digest_of_state))
    broken = await open_template(other)
    async with await broken.clone() as vm, asyncio.timeout(LIMIT):
        with pytest.raises(HostError, match="(?s)its hypervisor failed with exit code 1.*qemu"):
            await vm.start()
    await broken.remove()


def unfinished() -> list[Path]:
    """What a save that is not whole has left."""
    return [path for path in Layout.of_user().templates.iterdir() if path.name.startswith(".")]


OWNER = """
from utilityvm import create_lcow, default_options_lcow
from utilityvm.compute.qemu import saving
from utilityvm.store import templates

name, boot_files = sys.argv[1:]

for module, functions in ((saving, ("Draft", "copy_sparse", "_write")), (templates, ("refuse_existing", "sync_folder"))):
    for function in functions:
        around(module, function)

async def main():
    options = default_options_lcow(id=name, is_template=True, boot_files_path=boot_files, memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        await vm.save_as_template()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("step", "whole"),
    [
        *once(("after Draft", False), ("before copy_sparse", False), ("after copy_sparse", False), ("before sync_folder", False)),
        ("after sync_folder", False),
        ("after _write", True),
    ],
)
async def test_an_owner_killed_at_any_step_of_a_save_leaves_a_whole_template_or_none(
    boot_files: BootFiles, step: str, *, whole: bool
) -> None:
    name, folder = f"test-{new_guid()}", Layout.of_user().templates
    await killed_at(step, OWNER, name, str(boot_files.folder))
    if whole:
        made = await open_template(name)
        async with await started(made) as vm:
            assert (await run(vm, "true")).code == 0
        await made.remove()
    else:
        with pytest.raises(NotFound):
            await open_template(name)
    store.sweep(folder)
    assert unfinished() == []


CLONER = """
from utilityvm import open_template
from utilityvm.compute.qemu import origin, saving

name, template_id = sys.argv[1:]

around(origin, "copy_memory")
around(origin, "seal")
load = saving._carry_out

async def carry_out(*words, **more):
    kill("before the state is loaded")
    await load(*words, **more)
    kill("after the state was loaded")

saving._carry_out = carry_out

async def main():
    async with await (await open_template(template_id)).clone(name) as vm:
        kill("created")
        await vm.start()
        kill("started")
        await vm.run(["sh", "-c", "dd if=/dev/urandom of=/tmp/much bs=1M count=20"])
        kill("used")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "step",
    [
        *once("created", "before copy_memory", "after copy_memory", "after seal", "before the state is loaded"),
        *once("after the state was loaded", "started"),
        "used",
    ],
)
async def test_an_owner_killed_at_any_step_of_a_clone_leaves_the_template_as_it_was_and_nothing_else(template: Template, step: str) -> None:
    name, before = f"test-{new_guid()}", [digest(path) for path in sorted(template.folder.iterdir())]
    await killed_at(step, CLONER, name, template.id)
    assert [digest(path) for path in sorted(template.folder.iterdir())] == before
    assert unfinished() == []
