import json
from pathlib import Path

import pytest

from tests.unit.boot import samples
from utilityvm.boot.files import load
from utilityvm.kit.errors import Corrupt, HostError, NotFound, Unsupported, UtilityVMError

FILES = ["vmlinux", "kernel", "initrd.img", "busybox.tar"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    samples.boot_files(tmp_path / "boot")
    return tmp_path / "boot"


def refusal(folder: Path, *, digests: bool = False) -> UtilityVMError:
    with pytest.raises(UtilityVMError) as caught:
        load(folder, digests=digests)
    assert "uvm boot-files build" in caught.value.hint
    return caught.value


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_in_order_is_accepted(folder: Path) -> None:
    found = load(folder, digests=True)
    assert (found.vmlinux, found.kernel, found.initrd) == tuple(folder / name for name in FILES[:3])
    assert found.manifest.kernel.release == "6.1.0-1-amd64"


def test_a_folder_from_before_there_was_an_image_in_it_is_accepted(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files["busybox.tar"]
    edit(folder, files=files)
    (folder / "busybox.tar").unlink()
    load(folder, digests=True)


def test_a_missing_folder_says_how_to_build_it(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere")
    assert isinstance(error, NotFound)
    assert error.message == f"{tmp_path / 'nowhere' / 'manifest.json'}: no such boot file"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    error = refusal(folder)
    assert isinstance(error, NotFound)
    assert error.message == f"{folder / name}: no such boot file"


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_file_cut_at_any_point_is_corrupt(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for size in range(0, len(whole) - 1, max(1, len(whole) // 50)):
        (folder / name).write_bytes(whole[:size])
        error = refusal(folder)
        assert isinstance(error, Corrupt)
        assert str(folder / name) in error.message


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_seen_when_digests_are_asked_for(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    load(folder)
    error = refusal(folder, digests=True)
    assert isinstance(error, Corrupt)
    assert error.message.startswith(f"{folder / name}: its content is not")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_something_else_is_corrupt(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x" * (folder / name).stat().st_size)
    assert isinstance(refusal(folder), Corrupt)


def test_a_kernel_of_a_foreign_architecture_is_unsupported(folder: Path) -> None:
    (folder / "vmlinux").write_bytes(samples.elf({".text": b"code"}, machine=183))
    error = refusal(folder)
    assert isinstance(error, Unsupported)
    assert error.message == f"{folder / 'vmlinux'}: is for aarch64, only x86_64 is supported"


def test_boot_files_of_a_foreign_architecture_are_unsupported(folder: Path) -> None:
    edit(folder, architecture="aarch64")
    assert isinstance(refusal(folder), Unsupported)


def test_a_newer_format_is_unsupported_whatever_else_it_holds(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"version": 2, "kernels": []}')
    error = refusal(folder)
    assert isinstance(error, Unsupported)
    assert "has version 2" in error.message


def test_a_manifest_that_forgets_a_file_is_corrupt(folder: Path) -> None:
    edit(folder, files={})
    assert "says nothing about vmlinux" in refusal(folder).message


def test_a_field_that_we_do_not_know_is_corrupt(folder: Path) -> None:
    edit(folder, surprise=1)
    assert isinstance(refusal(folder), Corrupt)


def test_a_folder_in_the_place_of_a_file_is_told(folder: Path) -> None:
    (folder / "vmlinux").unlink()
    (folder / "vmlinux").mkdir()
    error = refusal(folder)
    assert isinstance(error, HostError)
    assert error.message == f"{folder / 'vmlinux'}: cannot be read: Is a directory"
