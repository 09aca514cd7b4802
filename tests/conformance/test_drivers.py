"""Every driver is the same driver: one suite over all of them."""

import gc
import os
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
from tests.hcs.harness import NOTHING, StandIn

from utilityvm.compute.hcs.machine import HcsMachine
from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.compute.qemu.service import QemuService
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.ids import VmId
from utilityvm.schema.devices import Devices, Plan9, Scsi, VirtualPMemController
from utilityvm.schema.document import (
    Chipset,
    ComputeSystem,
    LinuxKernelDirect,
    Memory,
    Processor,
    Topology,
    VirtualMachine,
)
from utilityvm.testing import conformance_devices
from utilityvm.testing.compute import FakeComputeService, FakeMachine, idle_guest
from utilityvm.testing.conformance import CASES, Driver
from utilityvm.testing.kernels import Then, kernel

D = TypeVar("D")


def document(kernel_path: Path) -> ComputeSystem:
    return ComputeSystem(
        should_terminate_on_last_handle_closed=True,
        virtual_machine=VirtualMachine(
            stop_on_reset=True,
            chipset=Chipset(linux_kernel_direct=LinuxKernelDirect(kernel_file_path=str(kernel_path))),
            compute_topology=Topology(memory=Memory(size_in_mb=16, allow_overcommit=True), processor=Processor(count=1)),
            devices=Devices(
                scsi={"0": Scsi()}, virtual_pmem=VirtualPMemController(maximum_count=4, maximum_size_bytes=16 << 20), plan9=Plan9()
            ),
        ),
    )


class Images:
    """A folder of the host, with an image in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def image(self) -> str:
        path = self._folder / "images" / "disk.img"
        if not path.exists():
            path.parent.mkdir(mode=0o755)
            path.write_bytes(bytes(2 << 20))
            path.chmod(0o644)
        return str(path)


class FakeDriver(Images):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._service = FakeComputeService()

    async def create(self, then: Then) -> FakeMachine:
        async def powers_off(_sock: object) -> None:
            return None

        async def resets(_sock: object) -> ExitStatus:
            return ExitStatus(ExitHow.RESET)

        self._service.guest = {Then.POWER_OFF: powers_off, Then.RESET: resets}.get(then, idle_guest)
        return await self._service.create(VmId("fake"), document(Path("/kernel")))


class QemuDriver(Images):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._numbers = count()
        self._service = QemuService(cache=folder / "cache", environ={**os.environ, "UVM_ACCEL": "tcg"})

    async def create(self, then: Then) -> QemuMachine:
        path = self._folder / then.name
        path.write_bytes(kernel("", then))
        return await self._service.create(VmId(f"conformance-{next(self._numbers)}"), document(path))


class HcsDriver(Images):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._numbers = count()
        self.standin = StandIn(folder)
        self._service = self.standin.service()

    async def create(self, then: Then) -> HcsMachine:
        self.standin.guest(then)
        return await self._service.create(VmId(f"conformance-{next(self._numbers)}"), document(Path("/kernel")))


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are what is compared)


DRIVERS = pytest.mark.parametrize(
    "driver",
    [pytest.param(FakeDriver, id="fake"), pytest.param(HcsDriver, id="hcs"), pytest.param(QemuDriver, id="qemu", marks=pytest.mark.vm)],
)


@DRIVERS
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
async def test_driver(case: Callable[[Driver], Awaitable[None]], driver: Callable[[Path], Driver], tmp_path: Path) -> None:
    await carry_out(case, driver(tmp_path))


@DRIVERS
@pytest.mark.parametrize("case", conformance_devices.CASES, ids=lambda case: case.__name__)
async def test_devices(
    case: Callable[[conformance_devices.DeviceDriver], Awaitable[None]],
    driver: Callable[[Path], conformance_devices.DeviceDriver],
    tmp_path: Path,
) -> None:
    await carry_out(case, driver(tmp_path))


async def carry_out(case: Callable[[D], Awaitable[None]], driver: D) -> None:
    before = descriptors()
    await case(driver)
    gc.collect()
    assert descriptors() <= before, "descriptors were left open"
    if isinstance(driver, HcsDriver):
        assert driver.standin.counts == NOTHING
