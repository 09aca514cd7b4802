"""Templates on disk: whole or not there, and what is left of a killed owner is found."""

import os
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from utilityvm.kit.errors import Corrupt, Exists, NotFound, Unsupported
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.store import templates
from utilityvm.store.devices import ContainerRecord, Devices, FileRecord
from utilityvm.store.templates import Draft, MachineRecord, Manifest, ids, opened, read, remove, size, sweep
from utilityvm.wire.oci import OciProcess, User

MACHINE = MachineRecord(
    qemu="7.2.0",
    accel="tcg",
    processor="",
    topology=("-smp", "1"),
    files={"kernel": FileRecord(sha256="0", identity="/k 1 2")},
    memory_bytes=8192,
)


def manifest(template_id: str = "one") -> Manifest:
    return Manifest(id=template_id, created=1.5, options=OptionsLCOW(id=template_id), machine=MACHINE, state_sha256="0")


def kept(folder: Path, template_id: str = "one") -> None:
    with Draft(folder, template_id) as draft:
        os.pwrite(draft.memory, b"memory", 4096)
        os.pwrite(draft.state, b"state", 0)
        draft.keep(manifest(template_id))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_template_that_is_kept_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "templates"
    kept(folder)
    kept(folder, "another")
    assert ids(folder) == ("another", "one")
    assert read(folder, "one") == manifest()
    with opened(folder, "one") as template:
        assert os.pread(template.memory, 6, 4096) == b"memory"
        assert os.pread(template.state, 100, 0) == b"state"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "one" / "memory").stat().st_mode & 0o777 == 0o444
    assert 0 < size(folder / "one") < 100_000


def test_a_draft_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Draft(tmp_path, "one"):
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_a_draft_is_no_template_and_is_not_swept_while_it_is_held(tmp_path: Path) -> None:
    with Draft(tmp_path, "one") as draft:
        assert ids(tmp_path) == ()
        with pytest.raises(NotFound):
            read(tmp_path, "one")
        assert sweep(tmp_path) == 0
        draft.keep(manifest())
    assert names(tmp_path) == ["one"]


def test_what_a_killed_owner_leaves_is_swept_and_nothing_else(tmp_path: Path) -> None:
    kept(tmp_path)
    left = tmp_path / ".new-x"
    left.mkdir()
    (left / "memory").write_bytes(bytes(9000))
    assert ids(tmp_path) == ("one",)
    assert sweep(tmp_path) > 9000
    assert names(tmp_path) == ["one"]
    assert sweep(tmp_path / "nowhere") == 0


def test_there_is_one_template_of_an_id_whoever_is_first(tmp_path: Path) -> None:
    with Draft(tmp_path, "one") as slow:
        kept(tmp_path)
        with pytest.raises(Exists, match="template one: there is one in"):
            slow.keep(manifest())
    with pytest.raises(Exists):
        Draft(tmp_path, "one")
    assert names(tmp_path) == ["one"]


def test_a_template_that_is_removed_stays_for_its_reader(tmp_path: Path) -> None:
    kept(tmp_path)
    with opened(tmp_path, "one") as template:
        remove(tmp_path, "one")
        assert os.pread(template.memory, 6, 4096) == b"memory"
    assert names(tmp_path) == []
    with pytest.raises(NotFound, match="template one: there is none in"):
        remove(tmp_path, "one")
    with pytest.raises(NotFound):
        remove(tmp_path / "nowhere", "one")


def test_what_is_not_as_it_was_written_is_corrupt_with_what_to_do(tmp_path: Path) -> None:
    kept(tmp_path)
    path = tmp_path / "one" / "manifest.json"
    good = path.read_bytes()
    for bad in (b"", b"{}", good.replace(b"topology", b"topography"), good.replace(b'"id": "one"', b'"id": "two"', 1)):
        path.write_bytes(bad)
        with pytest.raises(Corrupt, match="template one: ") as caught:
            read(tmp_path, "one")
        assert str(tmp_path / "one") in caught.value.hint
    path.unlink()
    with pytest.raises(Corrupt, match=r"template one: has no manifest\.json"):
        read(tmp_path, "one")
    path.write_bytes(good)
    (tmp_path / "one" / "memory").unlink()
    with pytest.raises(Corrupt, match="template one: has no memory"):
        read(tmp_path, "one")


def test_a_manifest_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    def of(length: int) -> Manifest:
        process = OciProcess(args=["x"], cwd="/", env=["e" * length], user=User(uid=0, gid=0))
        containers = (ContainerRecord(id="c", process=process),)
        return structs.replace(manifest(), machine=structs.replace(MACHINE, devices=Devices(containers=containers)))

    with Draft(tmp_path, "one") as draft:
        with pytest.raises(Unsupported, match="vm one: cannot be saved: what is known of it takes"):
            draft.keep(of(templates.MAX_MANIFEST))
        draft.keep(largest := of(templates.MAX_MANIFEST - 5000))
    assert read(tmp_path, "one") == largest


def test_another_version_of_ours_is_told(tmp_path: Path) -> None:
    kept(tmp_path)
    (tmp_path / "one" / "manifest.json").write_bytes(msgspec.json.encode({"version": templates.VERSION + 1, "news": []}))
    with pytest.raises(Unsupported, match=f"is of version {templates.VERSION + 1}, and this one knows version {templates.VERSION}"):
        read(tmp_path, "one")
