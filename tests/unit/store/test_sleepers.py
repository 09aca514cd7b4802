"""VMs that sleep in files: whole or not there, found out when they are not as they were written, and gone on from once."""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import structs

from utilityvm.kit.errors import Corrupt, Exists, HostError, NotFound, StateError, Unsupported
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store import sleepers
from utilityvm.store.sleepers import Bed, Sleeper
from utilityvm.store.templates import MAX_MANIFEST, VERSION, MachineRecord, Manifest

SIZE = 1 << 20
MACHINE = MachineRecord(qemu="7.2.0", accel="tcg", processor="", topology=(), files={}, memory_bytes=SIZE)
MANIFEST = Manifest(id="one", created=0, options=OptionsLCOW(), machine=MACHINE, state_sha256="")


@pytest.fixture
def memory() -> int:
    fd = os.memfd_create("memory")
    os.truncate(fd, SIZE)
    os.pwrite(fd, b"there", 8192)
    return fd


def saved(path: Path, memory: int) -> None:
    with Bed(path, SIZE) as bed:
        os.write(bed.fd, b"state")
        bed.keep(MANIFEST, memory, {})


def test_what_was_saved_is_read_again_with_its_holes_and_its_owner_alone_may_read_it(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "vm"
    saved(path, memory)
    with closing(Sleeper(path)) as sleeper:
        assert (sleeper.manifest.id, sleeper.manifest.machine, sleeper.state_at) == ("one", MACHINE, SIZE)
        assert os.pread(sleeper.fd, 5, 8192) == b"there"
        assert os.pread(sleeper.fd, 5, sleeper.state_at) == b"state"
    about = path.stat()
    assert about.st_mode & 0o777 == 0o600
    assert about.st_blocks * 512 < SIZE // 2, "its holes were filled"


def test_what_could_not_be_read_again_is_not_written_and_one_byte_less_is(tmp_path: Path, memory: int) -> None:
    """All of what is written counts: the digest of the state and where the disks lie too."""

    def save(name: str, more: int) -> Path:
        with Bed(tmp_path / name, SIZE) as bed:
            os.write(bed.fd, b"state")
            machine = structs.replace(MACHINE, topology=("x" * more,))
            bed.keep(structs.replace(MANIFEST, machine=machine), memory, {"a disk": memory})
        return tmp_path / name

    least = int.from_bytes(save("small", 0).read_bytes()[-8:], "little")
    with pytest.raises(Unsupported, match="vm one: cannot be saved: what is known of it takes 1,048,577 bytes, and there may be 1,048,576"):
        save("large", MAX_MANIFEST - least + 1)
    with closing(Sleeper(save("largest", MAX_MANIFEST - least))) as sleeper:
        assert len(sleeper.manifest.machine.topology[0]) == MAX_MANIFEST - least
    assert sorted(path.name for path in tmp_path.iterdir()) == ["largest", "small"]


def test_it_is_gone_on_from_once_at_a_time_and_as_long_as_a_copy_of_its_descriptor_is_open(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "vm"
    saved(path, memory)
    first = Sleeper(path)
    held = os.dup(first.fd)
    first.close()
    with pytest.raises(StateError, match=f"^{path}: cannot be restored while its VM is there$"):
        Sleeper(path)
    os.close(held)
    Sleeper(path).close()


def test_disks_lie_in_it_too_with_their_holes(tmp_path: Path, memory: int) -> None:
    path, disks = tmp_path / "vm", {name: os.memfd_create(name) for name in ("a", "b")}
    for name, fd in disks.items():
        os.truncate(fd, SIZE + 512)
        os.pwrite(fd, name.encode() * 100, 70000)
    with Bed(path, SIZE) as bed:
        os.write(bed.fd, b"state")
        bed.keep(MANIFEST, memory, disks)
    assert path.stat().st_blocks * 512 < SIZE // 2, "their holes were filled"
    with closing(Sleeper(path)) as sleeper:
        assert os.pread(sleeper.fd, 5, sleeper.state_at) == b"state"
        for name, fd in disks.items():
            copy = os.memfd_create("copy")
            sleeper.copy_disk(name, copy)
            assert os.pread(copy, SIZE * 2, 0) == os.pread(fd, SIZE * 2, 0)
            os.close(copy)
            os.close(fd)


def test_nothing_has_a_name_until_it_is_whole(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "vm"
    with Bed(path, SIZE) as bed:
        os.write(bed.fd, b"state")
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
    os.close(memory)


def test_what_is_there_stays_as_it_is(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "vm"
    with Bed(path, SIZE) as bed:
        path.write_bytes(b"another's")
        with pytest.raises(Exists, match=f"^{path}: there is something of this name$"):
            bed.keep(MANIFEST, memory, {})
    with pytest.raises(Exists):
        Bed(path, SIZE)
    assert path.read_bytes() == b"another's"


def test_a_folder_that_is_not_there_or_cannot_have_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no file can be made there: No such file or directory"):
        Bed(tmp_path / "nowhere" / "vm", SIZE)
    with pytest.raises(HostError, match="a file of 9223372036854775807 bytes cannot be made"):
        Bed(tmp_path / "vm", (1 << 63) - 1)


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes | memoryview, _offset: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sleepers, "write_all", full)
    with pytest.raises(HostError, match="vm: cannot be written: No space left on device"):
        saved(tmp_path / "vm", memory)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such file"):
        Sleeper(tmp_path / "vm")
    path = tmp_path / "other"
    path.write_bytes(b"x" * 100)
    with pytest.raises(Corrupt, match="other: is no saved VM, or only the beginning of one") as caught:
        Sleeper(path)
    assert "the whole file that `save` has written" in caught.value.hint


def test_one_that_is_cut_off_anywhere_or_changed_is_corrupt_and_is_let_go_of(tmp_path: Path, memory: int) -> None:
    path = tmp_path / "vm"
    saved(path, memory)
    whole = path.read_bytes()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for length in (0, 10, SIZE, SIZE + 3, len(whole) - 33, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Corrupt) as caught:
            Sleeper(path)
        assert "the whole file" in caught.value.hint
    for at in (SIZE, len(whole) - 16, len(whole) - 8, len(whole) - 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        with pytest.raises(Corrupt) as caught:
            Sleeper(path)
        assert caught.value.hint.startswith("take another copy")
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_one_of_another_version_is_told(tmp_path: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vm"
    saved(path, memory)
    monkeypatch.setattr("utilityvm.store.templates.VERSION", 99)
    with pytest.raises(Unsupported, match=f"is of version {VERSION}, and this one knows version 99") as caught:
        Sleeper(path)
    assert "with the version of this package that has saved it" in caught.value.hint
