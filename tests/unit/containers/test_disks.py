"""Scratch disks and named volumes: files of the host with ext4 on them."""

import asyncio
import errno
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.unit.devices.fake import World
from utilityvm.containers import scratch
from utilityvm.containers.container import Container
from utilityvm.containers.scratch import KEPT, SCRATCH_FORMAT, VOLUME_FORMAT, check_size, fill
from utilityvm.containers.volumes import lock_volume, make_volume, remove_volume, volume_file, volumes
from utilityvm.kit.errors import Exists, GuestError, HostError, InvalidOptions, NotFound
from utilityvm.kit.files import copy_sparse
from utilityvm.kit.proc import run_tool
from utilityvm.store.nameless import nameless
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.vm.uvm import UtilityVM

from .rig import LAYERS, PROGRAMS, SIZE, a_vm, config, forever, layout_of, nothing_is_left, some_turns, spec


def features(path: Path | str) -> str:
    """The features of the file system on a disk, which has no mistakes."""
    run_tool(["/sbin/e2fsck", "-fn", path], within=60)
    listing = run_tool(["/sbin/dumpe2fs", "-h", path], within=60)
    return next(line for line in listing.splitlines() if line.startswith("Filesystem features"))


async def test_a_scratch_disk_has_a_clean_file_system_without_a_journal_and_takes_little(tmp_path: Path) -> None:
    file = nameless(tmp_path / "scratch")
    await fill(file, tmp_path / "kept", 10 << 30, SCRATCH_FORMAT)
    about = os.fstat(file.fd)
    assert (about.st_size, about.st_nlink) == (10 << 30, 0)
    assert about.st_blocks * 512 < 1 << 20
    copy = tmp_path / "copy"
    with copy.open("wb") as target:
        copy_sparse(file.fd, target.fileno())
    file.close()
    file.close()
    said = features(copy)
    assert "has_journal" not in said
    assert "resize_inode" not in said
    assert "sparse_super2" in said
    assert list((tmp_path / "scratch").iterdir()) == []


async def test_a_file_system_of_one_size_is_made_once_whoever_asks_and_few_sizes_are_kept(tmp_path: Path) -> None:
    files = [nameless(tmp_path) for _ in range(4)]
    await asyncio.gather(*(fill(file, tmp_path / "kept", SIZE, SCRATCH_FORMAT) for file in files))  # noqa: TID251
    (kept,) = (tmp_path / "kept").glob("*.img")
    made = kept.stat().st_mtime_ns
    await fill(nameless(tmp_path), tmp_path / "kept", SIZE, SCRATCH_FORMAT)
    assert kept.stat().st_mtime_ns == made
    for at in range(KEPT):
        await fill(nameless(tmp_path), tmp_path / "kept", SIZE + (at + 1) * 4096, SCRATCH_FORMAT)
    assert len(list((tmp_path / "kept").glob("*.img"))) == KEPT
    assert not kept.exists()


async def test_a_copy_has_what_is_between_the_holes_also_where_blocks_cannot_be_shared(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        for at in (0, 5 << 20, 20 << 20):
            file.seek(at)
            file.write(b"x" * 5000)
        file.truncate(30 << 20)
    with source.open("rb") as one, target.open("wb") as other:
        copy_sparse(one.fileno(), other.fileno())
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks + 16


async def test_without_the_tool_it_is_said_which_package_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(words: list[str], **_: object) -> str:
        raise NotFound(f"{words[0]}: command not found", hint="install the package e2fsprogs")

    monkeypatch.setattr(scratch, "run_tool", none)
    file = nameless(tmp_path)
    with pytest.raises(NotFound, match="mkfs.ext4: command not found"):
        await fill(file, tmp_path / "kept", SIZE, SCRATCH_FORMAT)
    file.close()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["lock"]


def test_a_place_where_no_disk_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="file/scratch: no disk can be made here"):
        nameless(tmp_path / "file" / "scratch")


@pytest.mark.parametrize("size", [0, (16 << 20) - 1, (16 << 40) + 1, True, None, "1g", 1.5])
def test_sizes_that_no_disk_has_are_refused(size: object) -> None:
    with pytest.raises(InvalidOptions, match="x is .*: a disk has from 16 MiB to 16 TiB"):
        check_size(size, "x")


def test_a_size_is_rounded_up_to_whole_blocks() -> None:
    assert check_size((16 << 20) + 1, "x") == (16 << 20) + 4096


async def test_where_a_disk_finds_no_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: int, _target: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    layout = layout_of(tmp_path)
    await make_volume(layout, "first", SIZE)
    monkeypatch.setattr("utilityvm.containers.scratch.copy_sparse", full)
    with pytest.raises(
        HostError, match=f"^{layout.volumes}: a disk of {SIZE} bytes cannot be made here: No space left on device$"
    ) as caught:
        await make_volume(layout, "second", SIZE)
    assert caught.value.hint == f"make room on the file system of {layout.volumes}"


# -- volumes ------------------------------------------------------------------------------------------------------------


async def test_a_volume_is_made_once_with_a_journal_and_nothing_in_it(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    await asyncio.gather(*(make_volume(layout, "data", SIZE) for _ in range(3)))  # noqa: TID251
    path = volume_file(layout, "data")
    assert "has_journal" in features(path)
    listing = run_tool(["/sbin/debugfs", "-R", "ls -p /", path], within=60)
    assert "lost+found" not in listing
    before = path.stat()
    await make_volume(layout, "data", 2 * SIZE)
    assert path.stat() == before, "a volume that was there was made again"
    assert [entry.name for entry in path.parent.iterdir()] == ["data.img"]
    assert VOLUME_FORMAT == ()


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a" * 129])
def test_a_name_that_could_leave_its_folder_names_no_volume(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidOptions, match="cannot name a volume"):
        volume_file(layout_of(tmp_path), name)


async def test_a_volume_is_written_by_one_and_read_by_many(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    await make_volume(layout, "data", SIZE)
    writer = lock_volume(layout, "data", read_only=False)
    with pytest.raises(Exists, match="volume data: cannot be had to write: another VM has it"):
        lock_volume(layout, "data", read_only=False)
    with pytest.raises(Exists, match="volume data: cannot be had to read: another VM may write it"):
        lock_volume(layout, "data", read_only=True)
    writer.close()
    readers = [lock_volume(layout, "data", read_only=True) for _ in range(2)]
    with pytest.raises(Exists, match="to write"):
        lock_volume(layout, "data", read_only=False)
    for reader in readers:
        reader.close()
    lock_volume(layout, "data", read_only=False).close()


async def test_volumes_are_listed_and_removed_by_name_unless_a_vm_has_them(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    assert volumes(layout) == []
    for name in ("b", "a"):
        await make_volume(layout, name, SIZE)
    held = lock_volume(layout, "b", read_only=True)
    assert [(one.name, one.size, one.in_use) for one in volumes(layout)] == [("a", SIZE, False), ("b", SIZE, True)]
    assert all(0 < one.taken < SIZE for one in volumes(layout))
    with pytest.raises(Exists, match="volume b: cannot be had to write"):
        remove_volume(layout, "b")
    held.close()
    for name in ("a", "b"):
        remove_volume(layout, name)
    assert volumes(layout) == []
    with pytest.raises(NotFound, match="volume a: there is none"):
        remove_volume(layout, "a")


async def test_a_volume_that_is_removed_while_it_is_opened_is_not_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = layout_of(tmp_path)
    await make_volume(layout, "a", SIZE)
    real = os.open

    def removed_meanwhile(path: str, flags: int) -> int:
        fd = real(path, flags)
        volume_file(layout, "a").unlink()
        return fd

    monkeypatch.setattr("utilityvm.containers.volumes.os.open", removed_meanwhile)
    with pytest.raises(NotFound, match="volume a: was removed a moment ago"):
        lock_volume(layout, "a", read_only=False)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (only their number)


async def a_closed_container(world: World, name: str = "c") -> Container:
    """One of whose disk the guest has let go, and the host not."""
    container = await world.vm.create_container(name, spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
    await container.start()
    world.machine.modifies.clear()
    await container.close()
    return container


async def test_a_disk_of_ours_leaves_the_vm_meanwhile_and_keeps_its_place_and_its_file_until_it_has(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        before = open_files()
        container = await a_closed_container(world)
        assert world.guest_requests()[-1]["RequestType"] == "Remove"
        assert [(disk.lun, disk.state, disk.references) for disk in world.vm.scsi.disks] == [(0, "detaching", 1)]
        assert (container.released, world.vm.containers, open_files()) == (False, (), before + 1)
        async with asyncio.TaskGroup() as group:
            creating = group.create_task(world.vm.create_container("d", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE))
            while len(world.vm.scsi.disks) < 2:
                await asyncio.sleep(0)
            assert [(disk.lun, disk.state) for disk in world.vm.scsi.disks] == [(0, "detaching"), (1, "attaching")]
            world.machine.modifies.set()
        await creating.result().close()
        await creating.result().settled()
        nothing_is_left(world)
        assert open_files() == before


async def test_who_takes_the_name_again_or_saves_the_vm_waits_until_the_disk_has_left(tmp_path: Path) -> None:
    def again(vm: UtilityVM) -> Coroutine[Any, Any, object]:
        return vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)

    for then in (again, UtilityVM.save_as_template):
        async with a_vm(tmp_path, is_template=True) as world, asyncio.TaskGroup() as group:
            await a_closed_container(world)
            waits = group.create_task(then(world.vm))
            await some_turns()
            assert not waits.done()
            world.machine.modifies.set()
            await waits


async def test_a_disk_that_does_not_leave_the_vm_is_told_in_the_log_and_taken_away_by_the_next_close(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_vm(tmp_path) as world:
        before = open_files()
        world.host = lambda what: HostError("busy") if "Remove" in what else None
        container = await a_closed_container(world)
        world.machine.modifies.set()
        await container.settled()
        assert [disk.state for disk in world.vm.scsi.disks] == ["half detached"]
        assert (container.released, open_files()) == (False, before + 1)
        assert "container.kept" in caplog.text
        assert "busy" in caplog.text
        world.host = lambda _: None
        await container.close()
        nothing_is_left(world)
        assert (container.released, open_files()) == (True, before)


async def test_who_takes_the_name_of_one_that_could_not_be_given_back_hears_why_and_may_try_again(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        world.host = lambda what: HostError("busy") if "Remove" in what else None
        container = await a_closed_container(world)
        world.machine.modifies.set()
        with pytest.raises(HostError, match="container c: failed to release one or more container resources: .*busy"):
            await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        world.host = lambda _: None
        other = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert (container.released, world.vm.containers) == (True, (other,))


@pytest.mark.parametrize("fails", [False, True])
async def test_a_vm_that_ends_while_a_disk_leaves_it_leaves_nothing_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    before = open_files()
    async with a_vm(tmp_path) as world:
        world.host = lambda what: HostError("busy") if fails and "Remove" in what else None
        container = await a_closed_container(world)
        if fails:
            world.machine.modifies.set()
            await container.settled()
    assert open_files() == before
    assert ("container.kept" in caplog.text) is fails, "what goes with its VM was told as kept"


async def test_one_that_is_being_given_back_is_its_vms_whatever_is_made_meanwhile(tmp_path: Path) -> None:
    before = open_files()
    async with a_vm(tmp_path) as world, asyncio.TaskGroup() as group:
        container = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        world.hung.clear()
        world.machine.modifies.clear()
        closing = group.create_task(container.close())
        await some_turns()
        assert not container.released
        await world.vm.create_container("d", spec())
        world.hung.set()
        await closing
        saving = group.create_task(world.vm.save(tmp_path / "vm"))
        await some_turns()
        assert not saving.done()
        saving.cancel()
    assert open_files() == before


async def test_a_guest_that_does_not_let_go_of_a_disk_is_told_to_who_closes_the_container(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec(), layers=LAYERS, scratch_size_in_bytes=SIZE)
        world.guest = lambda what: "in use" if what == "guest Remove MappedVirtualDisk" else None
        with pytest.raises(GuestError, match="failed to remove SCSI disk .* in use"):
            await container.close()
        assert [disk.state for disk in world.vm.scsi.disks] == ["attached"]
        world.guest = lambda _: None
        await container.close()
        await container.settled()
        nothing_is_left(world)


def volume(source: str = "data", *options: str) -> dict[str, object]:
    return {"destination": "/v", "type": "volume", "source": source, "options": list(options)}


async def test_containers_of_one_vm_share_a_volume_which_is_free_after_the_last(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        made = [await world.vm.create_container(name, spec(mounts=[volume("data", "size=32m")])) for name in ("a", "b")]
        assert config(world, "a")["OciSpecification"]["mounts"] == [
            {"destination": "/v", "type": "bind", "source": "/run/mounts/m1", "options": ["rbind", "copy"]}
        ]
        assert [disk.references for disk in world.vm.scsi.disks] == [2]
        assert volume_file(layout_of(tmp_path), "data").stat().st_size == SIZE
        with pytest.raises(Exists, match="volume data: vm fake has it to write, and cannot have it in both ways"):
            await world.vm.create_container("c", spec(mounts=[volume("data", "ro")]))
        with pytest.raises(Exists, match="another VM has it"):
            lock_volume(layout_of(tmp_path), "data", read_only=False)
        for container in made:
            await container.close()
        nothing_is_left(world)
        lock_volume(layout_of(tmp_path), "data", read_only=False).close()


async def test_a_volume_of_another_vm_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    layout = layout_of(tmp_path)
    await make_volume(layout, "data", SIZE)
    theirs = lock_volume(layout, "data", read_only=False)
    async with a_vm(tmp_path) as world:
        with pytest.raises(Exists, match="^mount /v: volume data: cannot be had to write: another VM has it$") as caught:
            await world.vm.create_container("c", spec(mounts=[volume()]), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert "ro" in caught.value.hint
        nothing_is_left(world)
        theirs.close()
        await world.vm.create_container("c", spec(mounts=[volume()]))


async def test_before_a_vm_ends_its_guest_is_asked_to_write_what_it_holds_of_volumes(tmp_path: Path) -> None:
    for options, ran in (((), ["sync"]), (("ro",), [])):
        programs = list[str]()

        async def sync(_guest: FakeGuest, program: Program, programs: list[str] = programs) -> int:
            programs.append(program.argv[0])
            return 0

        async with a_vm(tmp_path, programs={**PROGRAMS, "sync": sync}) as world:
            await world.vm.create_container("c", spec(mounts=[volume("data", "size=32m", *options)]))
        assert programs == ran


async def test_a_guest_that_does_not_write_holds_the_end_up_for_a_moment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.containers.table.SETTLE_TIMEOUT", 0.05)
    async with a_vm(tmp_path, programs={**PROGRAMS, "sync": forever}) as world:
        await world.vm.create_container("c", spec(mounts=[volume("data", "size=32m")]))


async def test_the_vms_end_frees_its_volumes(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(mounts=[volume("data", "size=32m")]))
    lock_volume(layout_of(tmp_path), "data", read_only=False).close()


@pytest.mark.parametrize("option", ["size=", "size=x", "size=1", "size=99999999999999999999", "size=-1m"])
async def test_a_size_that_no_volume_has_is_refused_before_anything_is_done(tmp_path: Path, option: str) -> None:
    async with a_vm(tmp_path) as world:
        with pytest.raises(InvalidOptions, match=r"is no size|the size of volume data is 1:"):
            await world.vm.create_container("c", spec(mounts=[volume("data", option)]), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert world.asked == []
