"""Containers that a VM has from the one that it goes on from: what is kept, taken over, and given back."""

from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from utilityvm.containers.document import ContainerId
from utilityvm.containers.inherited import Inherited, kept, taken
from utilityvm.containers.releases import Releases
from utilityvm.containers.root import RootFs, ScratchDisk
from utilityvm.devices.layers import Bus, ImageLayer
from utilityvm.devices.scsi import FILE, Disk
from utilityvm.devices.vpmem import PMemDevice
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import NotFound, StateError, Unsupported
from utilityvm.store.devices import ContainerRecord, Devices
from utilityvm.wire.oci import OciProcess, User

if TYPE_CHECKING:
    from utilityvm.devices.tables import Tables

C, D = ContainerId("c"), ContainerId("d")
ROOT = RootFs("/run/gcs/c/c/rootfs", "/run/m/1/scratch/c", ScratchDisk("/s", "/run/m/1"), ("/run/layers/p0", "/run/m/2"))
NONE: frozenset[ContainerId] = frozenset()


def test_what_is_kept_is_where_the_guest_has_it() -> None:
    process = OciProcess(args=["sh"], cwd="/", user=User(uid=0, gid=0))
    record = kept(C, process, ROOT, []).record
    assert record == ContainerRecord(
        id="c", process=process, layers=("/run/layers/p0", "/run/m/2"), root="/run/gcs/c/c/rootfs", scratch="/run/m/1"
    )
    assert kept(C, None, None, []).record == ContainerRecord(id="c")
    bare = kept(C, None, RootFs("/r", layers=("/l",)), []).record
    assert bare == ContainerRecord(id="c", layers=("/l",), root="/r")
    whole = Devices(containers=(record, bare))
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Devices) == whole


def test_one_can_be_taken_over_once_and_who_is_there_is_told() -> None:
    inherited = Inherited("vm v", [ContainerRecord(id="c"), ContainerRecord(id="d")])
    assert C in inherited
    with pytest.raises(NotFound, match="vm v: goes on from no VM with a container x") as caught:
        inherited.find(ContainerId("x"))
    assert caught.value.hint == "it has c, d"
    assert inherited.find(C).id == "c"
    inherited.take(C)
    assert C not in inherited
    with pytest.raises(NotFound):
        inherited.find(C)
    assert [record.id for record in inherited.save([C], [])] == ["d", "c"]


def test_those_that_are_gone_are_not_kept_and_those_that_nobody_took_are() -> None:
    inherited = Inherited("vm v", [ContainerRecord(id="c")])
    inherited.add(D, kept(D, None, None, []), NONE)
    assert [record.id for record in inherited.save([D], [])] == ["c", "d"]
    for number in range(100):
        inherited.add(ContainerId(f"n{number}"), kept(D, None, None, []), NONE)
    assert len(inherited._own) == 1
    assert [record.id for record in inherited.save([], [])] == ["c"]


def test_what_another_could_not_have_is_refused_with_all_names_and_so_is_one_that_is_coming() -> None:
    inherited = Inherited("vm v", [])
    inherited.add(C, kept(C, None, None, ["the bind /a", "the volume b"]), NONE)
    inherited.add(D, kept(D, None, None, ["the bind /c"]), {C})
    with pytest.raises(Unsupported, match="the container c the bind /a, the volume b; for the container d the bind /c"):
        inherited.save([C, D], [])
    assert inherited.save([], []) == ()
    with pytest.raises(StateError, match="being given the container x"):
        inherited.save([], [ContainerId("x")])


class FakeScsi:
    """Disks that are there, and what is removed."""

    def __init__(self, gone: list[object]) -> None:
        self.disks = [Disk(0, 0, "t:scsi0-0", "/run/m/1", FILE, read_only=False), Disk(0, 1, "/l2", "/run/m/2", FILE, read_only=True)]
        self._gone = gone

    async def remove(self, host_path: str) -> None:
        self._gone.append(host_path)


class FakeLayers:
    """The same for layers and their union."""

    def __init__(self, gone: list[object]) -> None:
        self._gone = gone

    async def remove(self, layer: ImageLayer) -> None:
        self._gone.append(layer)

    async def remove_combined(self, root: str) -> None:
        self._gone.append(root)


class FakePmem:
    """One image on persistent memory."""

    devices = (PMemDevice(0, "/l1", "/run/layers/p0", 1, "attached"),)


async def test_all_of_it_is_given_back_from_the_last_to_the_first_by_the_names_that_it_has_here() -> None:
    gone: list[object] = []
    made = cast("Tables", type("T", (), {"scsi": FakeScsi(gone), "layers": FakeLayers(gone), "vpmem": FakePmem()})())
    given = Releases("v", Scope("v"), lambda: False)
    scratch = taken(kept(C, None, ROOT, []).record, made, given)
    assert scratch is not None
    assert (scratch.host_path, scratch.guest_path) == ("t:scsi0-0", "/run/m/1")
    assert await given.release() is None
    layers = [ImageLayer("/l2", "/run/m/2", Bus.SCSI), ImageLayer("/l1", "/run/layers/p0", Bus.VPMEM)]
    assert gone == ["/run/gcs/c/c/rootfs", "t:scsi0-0", *layers]


async def test_what_is_there_no_more_was_given_back_already() -> None:
    gone: list[object] = []
    made = cast("Tables", type("T", (), {"scsi": FakeScsi(gone), "layers": FakeLayers(gone), "vpmem": FakePmem()})())
    given = Releases("v", Scope("v"), lambda: False)
    scratch = taken(ContainerRecord(id="c", layers=("/elsewhere",), scratch="/nowhere"), made, given)
    assert scratch is None
    assert given.done
