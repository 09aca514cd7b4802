"""The memory of templates in the process that makes their clones."""

import asyncio
import errno
import hashlib
import mmap
import os
from pathlib import Path

import msgspec
import pytest

from utilityvm.compute.qemu import origin, records
from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.lower import Fd, Launch
from utilityvm.compute.qemu.origin import KEPT, Memories
from utilityvm.compute.qemu.records import record_of
from utilityvm.compute.qemu.share import Share
from utilityvm.kit.errors import Corrupt, HostError, NotFound, Unsupported
from utilityvm.kit.files import digest, identity
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store.layout import Layout
from utilityvm.store.templates import Draft, Manifest

SIZE = 1 << 20
HERE = Layout(Path("/nowhere"), Path("/nowhere"), Path("/nowhere"))
OLD = HostFacts(qemu="/qemu", version=(7, 2, 0), accel=Accel.TCG, reason="", processors=1, address_bits=40)
NEW = msgspec.structs.replace(OLD, version=(8, 2, 0))


def launch(kernel: Path, template_id: str = "one", smp: str = "1") -> Launch:
    files = {Fd.KERNEL: str(kernel)}
    argv = ("qemu", "-smp", smp)
    return Launch(
        argv=argv, memory_bytes=SIZE, files=files, console_path="", share=Share(count=1), rules={}, template=template_id, own_memory=False
    )


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"kernel")
    return path


def template(folder: Path, kernel: Path, template_id: str = "one", facts: HostFacts = OLD) -> None:
    with Draft(folder, template_id) as draft:
        os.truncate(draft.memory, SIZE)
        os.pwrite(draft.memory, template_id.encode(), 4096)
        os.pwrite(draft.state, b"state", 0)
        machine, digest = record_of(launch(kernel), facts), hashlib.sha256(b"state").hexdigest()
        draft.keep(Manifest(id=template_id, created=0, options=OptionsLCOW(), machine=machine, state_sha256=digest))


async def test_the_digests_of_what_it_reads_are_known_to_who_goes_on_from_it_and_those_that_were_never_told_are_not(
    tmp_path: Path, kernel: Path
) -> None:
    template(tmp_path, kernel)
    memories = Memories()
    origin = await memories.take(tmp_path, launch(kernel), OLD, HERE)
    assert origin.digests == {identity(kernel): digest(kernel)}
    known = {identity(kernel): "f" * 64}
    assert [record_of(launch(kernel), OLD, known, kept=kept).files["kernel"].sha256 for kept in (True, False)] == ["f" * 64, ""]
    os.utime(kernel, (0, 0))
    assert record_of(launch(kernel), OLD, known).files["kernel"].sha256 == digest(kernel)
    origin.machine = record_of(launch(kernel), OLD, kept=False)
    assert origin.digests == {}
    origin.close()
    memories.close()


async def test_memory_is_copied_once_sealed_and_each_clone_has_descriptors_of_its_own(tmp_path: Path, kernel: Path) -> None:
    template(tmp_path, kernel)
    memories = Memories()
    first, second = [await memories.take(tmp_path, launch(kernel), OLD, HERE) for _ in range(2)]
    assert os.fstat(first.memory).st_size == SIZE, "it can be mapped before it is copied"
    assert os.pread(first.memory, 3, 4096) == bytes(3)
    async with asyncio.TaskGroup() as group:
        for each in (first, second):
            group.create_task(each.whole())
    assert os.fstat(first.memory).st_ino == os.fstat(second.memory).st_ino
    assert os.pread(first.memory, 3, 4096) == b"one"
    assert os.fstat(first.memory).st_blocks * 512 < SIZE, "its holes were filled"
    with pytest.raises(PermissionError):
        os.pwrite(first.memory, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(first.memory, SIZE)
    with mmap.mmap(first.memory, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as own:
        own[4096:4099] = b"new"
        assert os.pread(second.memory, 3, 4096) == b"one"
    assert os.read(first.state, 5) == b"state"
    assert os.read(second.state, 5) == b"state", "the two share their place in the file"
    first.close()
    first.close()
    assert os.pread(second.memory, 3, 4096) == b"one"
    second.close()
    memories.close()


async def test_who_gives_up_while_memory_is_copied_leaves_no_descriptor(tmp_path: Path, kernel: Path) -> None:
    template(tmp_path, kernel)
    memories, before = Memories(), descriptors()
    async with asyncio.TaskGroup() as group:
        taking = group.create_task(memories.take(tmp_path, launch(kernel), OLD, HERE))
        await asyncio.sleep(0)
        taking.cancel()
    memories.close()
    assert taking.cancelled()
    assert descriptors() == before


async def test_a_copy_that_fails_is_told_and_tried_again_by_the_next(tmp_path: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: int, _target: int) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    template(tmp_path, kernel)
    memories = Memories()
    first, second = [await memories.take(tmp_path, launch(kernel), OLD, HERE) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(origin, "copy_memory", full)
        with pytest.raises(HostError, match="template one: its memory cannot be copied: Cannot allocate memory"):
            await first.whole()
    memories.close()  # as when its place is needed for others
    await second.whole()
    assert os.pread(first.memory, 3, 4096) == b"one"
    first.close()
    second.close()


async def test_a_qemu_that_can_read_alone_has_the_templates_own_file(tmp_path: Path, kernel: Path) -> None:
    template(tmp_path, kernel, facts=NEW)
    taken = await Memories().take(tmp_path, launch(kernel), NEW, HERE)
    await taken.whole()
    assert os.fstat(taken.memory).st_ino == (tmp_path / "one" / "memory").stat().st_ino
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(taken.memory, b"x", 0)
    taken.close()


async def test_few_memories_are_kept_and_a_template_that_was_made_again_is_another(tmp_path: Path, kernel: Path) -> None:
    memories = Memories()
    for number in range(KEPT + 2):
        template(tmp_path, kernel, f"t{number}")
        (await memories.take(tmp_path, launch(kernel, f"t{number}"), OLD, HERE)).close()
    assert len(memories._kept) == KEPT
    memories.close()
    assert memories._kept == {}


async def test_what_differs_is_told(tmp_path: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template(tmp_path, kernel)
    memories = Memories()

    async def refused(wanted: Launch, facts: HostFacts) -> str:
        with pytest.raises(Unsupported) as caught:
            await memories.take(tmp_path, wanted, facts, HERE)
        return caught.value.message.removeprefix("template one: ")

    assert await refused(launch(kernel), NEW) == "was made with QEMU 7.2.0, and here is 8.2.0"
    kvm = msgspec.structs.replace(OLD, accel=Accel.KVM)
    assert await refused(launch(kernel), kvm) == "was made with acceleration tcg, and here is kvm"
    assert await refused(launch(kernel, smp="2"), OLD) == "is of another machine: -smp 2, the template's is -smp 1"
    other = kernel.with_name("other")
    other.write_bytes(b"another")
    assert await refused(launch(other), OLD) == f"was made with another kernel than {other}"
    other.write_bytes(b"kernel")
    (await memories.take(tmp_path, launch(other), OLD, HERE)).close()
    template(tmp_path / "kvm", kernel, facts=kvm)
    monkeypatch.setattr(records, "_processor", lambda: "another")
    with pytest.raises(Unsupported, match="was made on another processor"):
        await memories.take(tmp_path / "kvm", launch(kernel), kvm, HERE)
    with pytest.raises(NotFound):
        await memories.take(tmp_path, launch(kernel, "two"), OLD, HERE)
    memories.close()


async def test_files_that_were_changed_are_corrupt(tmp_path: Path, kernel: Path) -> None:
    template(tmp_path, kernel)
    (tmp_path / "one" / "state").write_bytes(b"other")
    with pytest.raises(Corrupt, match="the state of its devices is not as it was written"):
        await Memories().take(tmp_path, launch(kernel), OLD, HERE)
    os.truncate(tmp_path / "one" / "memory", 5)
    with pytest.raises(Corrupt, match="its memory has 5 bytes, and should have 1048576"):
        await Memories().take(tmp_path, launch(kernel), OLD, HERE)
