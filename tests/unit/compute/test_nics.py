"""Plugging network adapters into a QEMU that is played: each step may fail, and what was done before is taken back."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.compute.qemu import Qemu, played

from utilityvm.compute.nic import NicEnd, NicKind
from utilityvm.compute.qemu.adapters import MAX_ADAPTERS
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.nics import Nics
from utilityvm.kit.errors import ConnectionLost, Exhausted, Exists, HostError, InvalidOptions, NotFound, QmpError, Unsupported
from utilityvm.schema.requests import ModifySettingRequest

MAC = "02-00-00-00-00-AB"
PLUG = ["getfd", "netdev_add", "device_add"]


def nic(kind: str, name: str = "n", **settings: object) -> ModifySettingRequest:
    path = f"VirtualMachine/Devices/NetworkAdapters/{name}"
    return ModifySettingRequest(resource_path=path, request_type=kind, settings={"EndpointId": "ep", "MacAddress": MAC} | settings)


class Rig:
    def __init__(self, monitor: Monitor, qemu: Qemu) -> None:
        self.monitor, self.qemu = monitor, qemu
        self.nics = Nics("vm x", range(64, 64 + MAX_ADAPTERS))
        self.failure, self.kind = False, NicKind.STREAM
        self.nics.offer("ep", self.wire)

    async def wire(self) -> NicEnd:
        if self.failure:
            raise HostError("no wire")
        return NicEnd(self.kind, os.open("/dev/null", os.O_RDWR), 65_520)

    async def modify(self, request: ModifySettingRequest) -> bool:
        return await self.nics.modify(request, self.monitor)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    async with played() as (monitor, qemu):
        yield Rig(monitor, qemu)


async def test_an_adapter_is_plugged_in_with_the_descriptor_of_its_endpoint_and_out_in_the_other_order() -> None:
    async with rig() as one:
        assert await one.modify(nic("Add"))
        assert one.qemu.heard == PLUG
        assert len(one.qemu.fds) == 1
        assert one.qemu.arguments == [
            {"fdname": "nic64"},
            {"type": "socket", "id": "nic64", "fd": "nic64"},
            {
                "driver": "virtio-net-pci",
                "id": "nic64",
                "netdev": "nic64",
                "mac": "02:00:00:00:00:ab",
                "romfile": "",
                "bus": "bridge2",
                "addr": "0x3",
                "host_mtu": 65_520,
            },
        ]
        await one.modify(nic("Remove"))
        assert one.qemu.heard[3:] == ["device_del", "netdev_del"]


async def test_a_tap_is_plugged_in_as_a_tap() -> None:
    async with rig() as one:
        one.kind = NicKind.TAP
        await one.modify(nic("Add"))
        assert one.qemu.arguments[1] == {"type": "tap", "id": "nic64", "fd": "nic64"}


@pytest.mark.parametrize(("fails", "undone"), [("getfd", []), ("netdev_add", ["closefd"]), ("device_add", ["netdev_del"])])
async def test_a_step_that_fails_is_taken_back_with_those_before_it(fails: str, undone: list[str]) -> None:
    async with rig() as one:
        one.qemu.fails = fails
        with pytest.raises(QmpError):
            await one.modify(nic("Add"))
        assert one.qemu.heard == [*PLUG[: PLUG.index(fails) + 1], *undone]
        one.qemu.fails = ""
        await one.modify(nic("Add"))


async def test_a_removal_that_fails_goes_on_from_where_it_stopped() -> None:
    async with rig() as one:
        await one.modify(nic("Add"))
        one.qemu.fails = "netdev_del"
        with pytest.raises(QmpError):
            await one.modify(nic("Remove"))
        one.qemu.fails = ""
        await one.modify(nic("Remove"))
        assert one.qemu.heard[3:] == ["device_del", "netdev_del", "netdev_del"]
        with pytest.raises(NotFound):
            await one.modify(nic("Remove"))


async def test_places_are_filled_from_the_first_and_used_again() -> None:
    async with rig() as one:
        for number in range(MAX_ADAPTERS):
            await one.modify(nic("Add", str(number)))
        with pytest.raises(Exhausted, match="8 network adapters"):
            await one.modify(nic("Add", "one more"))
        await one.modify(nic("Remove", "3"))
        await one.modify(nic("Add", "other"))
        assert one.qemu.arguments[-1]["id"] == "nic67"


async def test_an_end_that_is_not_given_is_the_error_and_the_place_is_free() -> None:
    async with rig() as one:
        one.failure = True
        with pytest.raises(HostError, match="no wire"):
            await one.modify(nic("Add"))
        one.failure = False
        await one.modify(nic("Add"))
        assert one.qemu.arguments[-1]["id"] == "nic64"


async def test_an_undo_that_fails_does_not_hide_why() -> None:
    async with rig() as one:
        one.qemu.dies = "device_add"
        with pytest.raises(ConnectionLost):
            await one.modify(nic("Add"))


async def test_what_makes_no_sense_is_refused_by_what_is_wrong() -> None:
    async with rig() as one:
        await one.modify(nic("Add"))
        for request, error, why in (
            (nic("Add"), Exists, "exists already"),
            (nic("Update"), Unsupported, "not changed"),
            (nic("Add", "m", EndpointId="other"), NotFound, "nobody has offered the endpoint other"),
            (nic("Add", "m", EndpointId=""), InvalidOptions, "EndpointId: missing"),
            (nic("Add", "m", MacAddress="02-00"), InvalidOptions, "'02-00' is no hardware address"),
            (nic("Add", "m", MacAddress="02-00:00-00-00-00"), InvalidOptions, "no hardware address"),
            (nic("Add", "m", MacAddress="03-00-00-00-00-00"), InvalidOptions, "is a group's"),
            (nic("Add", "m", IovSettings={}), Unsupported, "IovSettings"),
            (nic("Add", "m", MacAddress=5), InvalidOptions, "MacAddress"),
        ):
            with pytest.raises(error, match=why):
                await one.modify(request)
        with pytest.raises(Exists):
            one.nics.offer("ep", one.wire)
        assert not await one.modify(ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/0", request_type="Add"))
        assert one.qemu.heard == PLUG
