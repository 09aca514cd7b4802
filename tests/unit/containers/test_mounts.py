"""Mounts of a container: what the guest is given for them, and what it is told of each."""

from pathlib import Path
from typing import Any

import pytest

from utilityvm.kit.errors import InvalidOptions, NotFound

from .rig import LAYERS, SIZE, a_vm, config, nothing_is_left, spec


def told(world: Any, container_id: str = "c") -> Any:  # noqa: ANN401 (JSON)
    return config(world, container_id)["OciSpecification"]["mounts"]


async def test_a_folder_of_the_host_is_shared_and_given_back(tmp_path: Path) -> None:
    mounts = [{"destination": "/proc", "type": "proc"}, {"destination": "/a", "type": "bind", "source": "/src", "options": ["rbind", "RO"]}]
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec(mounts=mounts), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert told(world) == [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/a", "type": "bind", "source": "/run/mounts/m2", "options": ["rbind", "RO"]},
        ]
        (share,) = world.vm.plan9.shares
        assert (share.host_path, share.guest_path, share.read_only) == ("/src", "/run/mounts/m2", True)
        await container.close()
        nothing_is_left(world)


async def test_a_single_file_is_shared_alone_of_its_folder(tmp_path: Path) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(mounts=[{"destination": "/f", "type": "bind", "source": "/src/file"}]))
        assert told(world) == [{"destination": "/f", "type": "bind", "source": "/run/mounts/m1/file", "options": ["rbind"]}]
        (share,) = world.vm.plan9.shares
        assert (share.host_path, share.allowed_names, share.read_only) == ("/src/", ("file",), False)


@pytest.mark.parametrize("kind", ["physical-disk", "virtual-disk"])
async def test_a_disk_is_attached_and_bound(tmp_path: Path, kind: str) -> None:
    mount = {"destination": "/d", "type": kind, "source": "/disk", "options": ["ro"]}
    async with a_vm(tmp_path) as world:
        container = await world.vm.create_container("c", spec(mounts=[mount]))
        assert told(world) == [{"destination": "/d", "type": "none", "source": "/run/mounts/m1", "options": ["rbind", "ro"]}]
        (disk,) = world.vm.scsi.disks
        assert (disk.type, disk.read_only) == ("PassThru" if kind == "physical-disk" else "VirtualDisk", True)
        await container.close()
        nothing_is_left(world)


@pytest.mark.parametrize(
    "mount",
    [
        {"destination": "/s", "type": "bind", "source": "sandbox:///x"},
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        {"destination": "/b", "source": "/of/the/guest", "options": ["bind"]},
    ],
)
async def test_what_the_guest_finds_itself_is_left_as_it_is(tmp_path: Path, mount: dict[str, Any]) -> None:
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(mounts=[mount]))
        assert told(world) == [mount]
        assert world.asked == []


@pytest.mark.parametrize("kind", ["bind", "physical-disk", "virtual-disk"])
@pytest.mark.parametrize("source", ["src", "./src", "../src", "C:", "sandbox:/x"])
async def test_a_source_that_depends_on_where_we_are_is_refused_by_its_name(tmp_path: Path, kind: str, source: str) -> None:
    async with a_vm(tmp_path) as world:
        with pytest.raises(InvalidOptions, match=f"^mount /a: the source '{source}' is not an absolute path of this host$"):
            await world.vm.create_container("c", spec(mounts=[{"destination": "/a", "type": kind, "source": source}]))
        assert world.asked == []


async def test_a_folder_beside_the_root_is_on_the_scratch_disk_and_filled(tmp_path: Path) -> None:
    mount = {"destination": "/data", "type": "scratch", "source": "0", "options": ["rw"]}
    async with a_vm(tmp_path) as world:
        await world.vm.create_container("c", spec(mounts=[mount]), layers=LAYERS, scratch_size_in_bytes=SIZE)
        (disk,) = world.vm.scsi.disks
        place = f"{disk.guest_path}/scratch/c/volumes/0"
        assert told(world) == [{"destination": "/data", "type": "bind", "source": place, "options": ["rbind", "rw", "copy"]}]
        with pytest.raises(InvalidOptions, match="^mount /data: it is a folder of the scratch disk, and the container has none$"):
            await world.vm.create_container("d", spec(mounts=[mount]))
    async with a_vm(tmp_path, ours=False) as world:
        await world.vm.create_container("c", spec(mounts=[mount]), layers=LAYERS, scratch_size_in_bytes=SIZE)
        assert [(one["type"], one["options"]) for one in told(world)] == [("tmpfs", ["nosuid", "nodev", "tmpcopyup"])]


async def test_a_volume_is_filled_by_our_agent_when_it_can_be_written_and_that_is_wanted(tmp_path: Path) -> None:
    for ours, options, last in ((True, [], "copy"), (True, ["nocopy"], "rbind"), (True, ["ro"], "ro"), (False, [], "rbind")):
        async with a_vm(tmp_path, ours=ours) as world:
            mount = {"destination": "/v", "type": "volume", "source": "data", "options": ["size=32m", *options]}
            await world.vm.create_container("c", spec(mounts=[mount]))
            assert told(world)[0]["options"][-1] == last


@pytest.mark.parametrize("kind", ["bind", "physical-disk", "virtual-disk", "volume"])
async def test_a_mount_without_a_source_or_a_destination_is_refused_in_the_originals_words(tmp_path: Path, kind: str) -> None:
    said = (
        f"^invalid OCI spec - a mount must have both source and a destination: {{Destination:/x Type:{kind} Source: Options:\\[ro a\\]}}$"
    )
    async with a_vm(tmp_path) as world:
        mounts = [
            {"destination": "/x", "type": kind, "options": ["ro", "a"]},
            {"destination": "/ok", "type": "bind", "source": "/src"},
            {"destination": "", "type": kind, "source": "/src"},
        ]
        with pytest.raises(InvalidOptions, match=said) as caught:
            await world.vm.create_container("c", spec(mounts=mounts))
        assert [problem.path for problem in caught.value.problems] == ["$.mounts[0]", "$.mounts[2]"]
        nothing_is_left(world)


async def test_a_source_that_is_not_there_is_told_and_undoes_what_was_done(tmp_path: Path) -> None:
    mounts = [{"destination": "/a", "type": "bind", "source": "/src"}, {"destination": "/b", "type": "bind", "source": "/not/there"}]
    async with a_vm(tmp_path) as world:
        with pytest.raises(NotFound, match="^mount /b: could not open '/not/there' path on host: /not/there: no such file"):
            await world.vm.create_container("c", spec(mounts=mounts), layers=LAYERS, scratch_size_in_bytes=SIZE)
        nothing_is_left(world)
