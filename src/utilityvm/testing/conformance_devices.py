"""What every driver must do with a change of a machine, for every kind of device. `conformance` has the suite."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from msgspec import structs

from utilityvm.compute.life import State
from utilityvm.compute.ports import Machine
from utilityvm.kit.errors import NotFound, Unsupported, UtilityVMError
from utilityvm.schema.devices import (
    Attachment,
    ComPort,
    HvSocketServiceConfig,
    NetworkAdapter,
    Plan9Share,
    VirtualPciDevice,
    VirtualPciFunction,
    VirtualPMemDevice,
    VirtualSmbShare,
)
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.testing.conformance import expect, refuses
from utilityvm.testing.kernels import Then

_DEVICES: Final = "VirtualMachine/Devices"
_GUID: Final = "6b8f1f4d-3c2a-4e57-9a61-0f1e2d3c4b5a"


class DeviceDriver(Protocol):
    """What a driver's test module provides."""

    async def create(self, then: Then) -> Machine:
        """Create a machine with one SCSI controller and some places for persistent memory."""
        ...

    def image(self) -> str:
        """Return the path of a raw image of 2 MiB that the driver can give to a machine, in a folder with nothing else."""
        ...


def additions(image: str, folder: str) -> dict[str, ModifySettingRequest]:
    """Return the addition of a device of every kind, by the kind; `image` and `folder` are the host's."""

    def add(path: str, settings: object = None) -> ModifySettingRequest:
        return ModifySettingRequest(resource_path=f"{_DEVICES}/{path}", request_type="Add", settings=settings)

    return {
        "SCSI disk": add("Scsi/0/Attachments/3", Attachment(type="VirtualDisk", path=image)),
        "persistent memory": add("VirtualPMem/Devices/1", VirtualPMemDevice(host_path=image, read_only=True, image_format="Vhd1")),
        "9p share": add("Plan9/Shares", Plan9Share(name="0", access_name="0", path=folder, port=564, flags=4)),
        "SMB share": add("VirtualSmb/Shares", VirtualSmbShare(name="s1", path=folder)),
        "PCI device": add(f"VirtualPci/{_GUID}", VirtualPciDevice(functions=[VirtualPciFunction(device_instance_path="0000:00:1e.7")])),
        "named pipe": add("MappedPipes/x"),
        "network adapter": add(f"NetworkAdapters/{_GUID}", NetworkAdapter(endpoint_id=_GUID, mac_address="02-00-00-00-00-01")),
        "serial port": add("ComPorts/1", ComPort(named_pipe=f"{folder}/com")),
        "socket service": add(f"HvSocket/HvSocketConfig/ServiceTable/{_GUID}", HvSocketServiceConfig(disabled=True)),
        "something unknown": add("Cats/0"),
    }


async def a_device_of_every_kind_comes_and_goes_or_is_refused_by_its_path(driver: DeviceDriver) -> None:
    """What a driver adds it removes, so that it can be added again; what it does not carry out it names; and the machine runs on."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    for kind, addition in _additions(driver).items():
        if await _added(machine, kind, addition):
            await machine.modify(_removal(addition))
            expect(await _added(machine, kind, addition), f"a {kind} could be added only once")
            await machine.modify(_removal(addition))
    expect((await machine.properties()).state == "Running", "the machine does not run on")
    await machine.close()


async def devices_come_and_go_side_by_side(driver: DeviceDriver) -> None:
    """Changes of different devices at the same time do not disturb each other, also while the machine stands still."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    await machine.pause()
    for _ in range(2):
        async with asyncio.TaskGroup() as group:
            added = {kind: group.create_task(_added(machine, kind, addition)) for kind, addition in _additions(driver).items()}
        async with asyncio.TaskGroup() as group:
            for kind, addition in _additions(driver).items():
                if added[kind].result():
                    group.create_task(machine.modify(_removal(addition)))
    await machine.close()


async def nothing_is_changed_where_nothing_runs(driver: DeviceDriver) -> None:
    """Neither before the start nor after the end nor after the close."""
    machine = await driver.create(Then.HANG)
    for state in (State.CREATED, State.STOPPED, State.CLOSED):
        if state is State.STOPPED:
            await machine.start()
            await machine.terminate()
        elif state is State.CLOSED:
            await machine.close()
        for kind, addition in _additions(driver).items():
            expect(await refuses(machine.modify(addition)), f"a {kind} was not refused to a machine that is {state}")


async def a_machine_may_end_during_any_change(driver: DeviceDriver) -> None:
    """Whoever asked is told, or it was done; what was added goes with the machine."""
    for kind, addition in _additions(driver).items():
        machine = await driver.create(Then.HANG)
        await machine.start()
        async with asyncio.TaskGroup() as group:
            changing = group.create_task(_tried(machine, addition))
            await asyncio.sleep(0)
            await machine.terminate()
        failure = changing.result()
        expect(failure is None or str(failure) != "", f"a {kind} failed without a word as its machine ended")
        await machine.close()


CASES: Final[tuple[Callable[[DeviceDriver], Awaitable[None]], ...]] = (
    a_device_of_every_kind_comes_and_goes_or_is_refused_by_its_path,
    devices_come_and_go_side_by_side,
    nothing_is_changed_where_nothing_runs,
    a_machine_may_end_during_any_change,
)
"""Every case."""


def _additions(driver: DeviceDriver) -> dict[str, ModifySettingRequest]:
    image = driver.image()
    return additions(image, image.rpartition("/")[0])


def _removal(addition: ModifySettingRequest) -> ModifySettingRequest:
    return structs.replace(addition, request_type="Remove")


async def _added(machine: Machine, kind: str, addition: ModifySettingRequest) -> bool:
    """Add it; return False where the driver does not carry it out and says so by the path, or by what the host lacks for it.

    An adapter on an endpoint that nobody offers is refused so too: who has adapters may need a guest to take them out again.
    """
    try:
        await machine.modify(addition)
    except (Unsupported, NotFound) as error:
        expect(addition.resource_path in error.message, f"a {kind} is refused without its path: {error.message}")
        return False
    return True


async def _tried(machine: Machine, addition: ModifySettingRequest) -> UtilityVMError | None:
    try:
        await machine.modify(addition)
    except UtilityVMError as error:
        return error
    return None
