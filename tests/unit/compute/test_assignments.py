"""Devices of the host that come to a QEMU which is played, and go; the memory that they pin."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from tests.unit.compute.qemu import Qemu, played

from utilityvm.compute.qemu.assign import Function, Node, OnHost
from utilityvm.compute.qemu.assignments import Assignments
from utilityvm.compute.qemu.jail import ALWAYS, Jail, Layer
from utilityvm.compute.qemu.pins import BESIDE, Pins, why_not_pinned
from utilityvm.kit.child import Child
from utilityvm.kit.errors import Exhausted, Exists, NotFound, QmpError, StateError, Unsupported
from utilityvm.kit.locked import CAP_SYS_RESOURCE, has_capability
from utilityvm.schema.requests import ModifySettingRequest

CARDS = [f"0000:01:00.{number}" for number in range(3)]
GUIDS = [f"6b8f1f4d-3c2a-4e57-9a61-0f1e2d3c4b5{number}" for number in range(4)]
JAILED = Jail(layers=(Layer.MOUNT, *ALWAYS))
PLUG = ["query-status", "device_add"]
MIB = 1 << 20


def on_host(address: str, driver: str = "vfio-pci") -> OnHost:
    node = Node("/dev/vfio/12", 0o600, 0, ours=True)
    return OnHost(True, Function(address, driver, 0x0200), "12", container=node, node=node)


@asynccontextmanager
async def rig(
    *,
    named: tuple[str, ...] = tuple(CARDS),
    jail: Jail = JAILED,
    locked: bool = True,
    places: range = range(64, 79),
    driver: str = "vfio-pci",
) -> AsyncIterator[tuple[Assignments, Qemu]]:
    async with played() as (monitor, qemu):
        made = Assignments(
            monitor,
            "vm x",
            places=places,
            named=named,
            jail=jail,
            locked=locked,
            pins=Pins(-BESIDE, os.getpid),
            look=lambda address: on_host(address, driver),
        )
        yield made, qemu


def change(kind: str, card: int = 0, place: int | None = None) -> ModifySettingRequest:
    guid = GUIDS[card if place is None else place]
    settings = {"Functions": [{"DeviceInstancePath": CARDS[card]}]} if kind == "Add" else None
    return ModifySettingRequest(resource_path=f"VirtualMachine/Devices/VirtualPci/{guid}", request_type=kind, settings=settings)


async def test_a_device_comes_to_a_place_of_which_the_guest_is_told_and_leaves_it_to_the_next() -> None:
    async with rig() as (given, qemu):
        assert [await given.modify(change("Add", card)) for card in (0, 1)] == [{"Place": 64}, {"Place": 65}]
        assert qemu.arguments[1] == {"driver": "vfio-pci", "id": f"vpci-{GUIDS[0]}", "host": CARDS[0], "bus": "bridge2", "addr": "0x3"}
        assert await given.modify(change("Remove")) == {}
        assert qemu.arguments[-1] == {"id": f"vpci-{GUIDS[0]}"}
        assert await given.modify(change("Add", 2)) == {"Place": 64}
        assert qemu.heard == [*PLUG, *PLUG, "device_del", *PLUG]


async def test_what_is_about_something_else_is_left_to_others() -> None:
    async with rig() as (given, qemu):
        assert await given.modify(ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/1")) is None
        assert qemu.heard == []


async def test_a_device_is_given_once_and_a_guid_holds_one() -> None:
    async with rig() as (given, qemu):
        await given.modify(change("Add"))
        with pytest.raises(Exists, match=f"{GUIDS[0]}: is {CARDS[0]} already"):
            await given.modify(change("Add", 1, place=0))
        with pytest.raises(Exists, match=f"{GUIDS[3]}: {CARDS[0]} is given to this machine already"):
            await given.modify(change("Add", 0, place=3))
        assert qemu.heard == PLUG


async def test_devices_that_come_at_once_get_places_of_their_own() -> None:
    async with rig() as (given, _):
        async with asyncio.TaskGroup() as group:
            coming = [group.create_task(given.modify(change("Add", card))) for card in range(3)]
        assert [task.result() for task in coming] == [{"Place": 64}, {"Place": 65}, {"Place": 66}]


async def test_the_last_place_is_told() -> None:
    async with rig(places=range(64, 65)) as (given, qemu):
        await given.modify(change("Add"))
        with pytest.raises(Exhausted, match="all 1 places for devices of the host are taken"):
            await given.modify(change("Add", 1))
        assert qemu.heard == PLUG


async def test_what_qemu_refuses_leaves_nothing_and_may_be_asked_for_again() -> None:
    async with rig() as (given, qemu):
        qemu.fails = "device_add"
        with pytest.raises(QmpError, match="QEMU refused device_add") as caught:
            await given.modify(change("Add"))
        assert caught.value.hint == ""
        qemu.says_no = "vfio 0000:01:00.0: failed to open /dev/vfio/12: Device or resource busy"
        with pytest.raises(QmpError, match="Device or resource busy") as caught:
            await given.modify(change("Add"))
        assert "another VM" in caught.value.hint
        qemu.fails = ""
        assert await given.modify(change("Add")) == {"Place": 64}


async def test_what_qemu_does_not_let_go_of_stays_and_may_be_removed_again() -> None:
    async with rig() as (given, qemu):
        await given.modify(change("Add"))
        qemu.fails = "device_del"
        with pytest.raises(QmpError, match="QEMU refused device_del"):
            await given.modify(change("Remove"))
        qemu.fails = ""
        await given.modify(change("Remove"))
        with pytest.raises(NotFound, match="there is no device of the host"):
            await given.modify(change("Remove"))


async def test_a_device_that_the_jail_does_not_show_is_refused_with_what_to_do() -> None:
    async with rig(named=()) as (given, qemu):
        with pytest.raises(Unsupported, match=f"{GUIDS[0]}: {CARDS[0]}: QEMU opens /dev/vfio by its path") as caught:
            await given.modify(change("Add"))
        assert caught.value.hint == "name it when the VM is created: assigned_devices"
        assert qemu.heard == []
    async with rig(named=(), jail=Jail()) as (given, _):  # without a jail it sees all
        assert await given.modify(change("Add")) == {"Place": 64}


async def test_nothing_is_given_to_a_machine_whose_memory_is_not_all_there() -> None:
    async with rig(locked=False) as (given, qemu):
        with pytest.raises(Unsupported, match="AllowOvercommit is true"):
            await given.modify(change("Add"))
        assert qemu.heard == []


async def test_a_device_is_looked_at_again_when_it_comes() -> None:
    async with rig(driver="e1000e") as (given, qemu):
        with pytest.raises(StateError, match="while bound to the driver e1000e"):
            await given.modify(change("Add"))
        assert qemu.heard == []


async def test_a_device_can_be_given_and_taken_and_nothing_else() -> None:
    async with rig() as (given, _):
        with pytest.raises(Unsupported, match="RequestType 'Update'"):
            await given.modify(change("Update"))


# -- what they pin ------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def process() -> AsyncIterator[int]:
    """A process that may pin 1 MiB."""
    child = Child(["sleep", "60"])
    resource.prlimit(child.pid, resource.RLIMIT_MEMLOCK, (MIB, MIB))
    yield child.pid
    child.kill()
    await child.wait()


def limit(process: int) -> tuple[int, int]:
    return resource.prlimit(process, resource.RLIMIT_MEMLOCK)


MAY_RAISE = has_capability(CAP_SYS_RESOURCE)


@pytest.mark.skipif(not MAY_RAISE, reason="needs the right to raise limits")
async def test_qemu_may_pin_the_guests_memory_and_no_more(process: int) -> None:
    pins = Pins(64 * MIB, lambda: process)
    pins.add(2 * MIB)
    assert limit(process) == (MIB, MIB), "there is no device yet"
    pins.begin()
    assert limit(process) == (66 * MIB + BESIDE, 66 * MIB + BESIDE)
    pins.add(2 * MIB)
    pins.add(-2 * MIB)
    assert limit(process)[0] == 68 * MIB + BESIDE


@pytest.mark.skipif(MAY_RAISE, reason="whoever may raise limits is not held to them")
async def test_a_limit_that_is_too_low_is_told_and_nothing_is_changed(process: int) -> None:
    pins = Pins(64 * MIB, lambda: process)
    with pytest.raises(Unsupported, match=r"pins 128 MiB of the guest's memory, and QEMU may pin 1 MiB \(RLIMIT_MEMLOCK\)") as caught:
        pins.begin()
    assert "ulimit -l" in caught.value.hint
    pins.add(2 * MIB)
    assert limit(process) == (MIB, MIB)


@pytest.mark.parametrize("capable", [True, False])
def test_whether_memory_can_be_pinned_is_known_before_anything_starts(capable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.compute.qemu.pins.has_capability", lambda _: capable)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MIB, 64 * MIB))
    assert (why_not_pinned(MIB) == "") is capable
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MIB, 64 * MIB + BESIDE))
    assert why_not_pinned(64 * MIB) == ""
