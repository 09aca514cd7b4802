"""The plan of a Linux guest: steps in order, and what goes with the document."""

from typing import Any

import msgspec
import pytest

from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, Unsupported
from utilityvm.options.lcow import OptionsLCOW, RootFSType
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Counted, Facts, Platform, Refused
from utilityvm.plan.lcow import BootFilePaths, LcowPlan, VPMemSlot, boot_file_paths, plan_lcow
from utilityvm.schema import json
from utilityvm.schema.devices import Devices, ImageFormat
from utilityvm.schema.document import VirtualMachine

FACTS = Facts(
    platform=Platform.QEMU,
    path_flavour=PathFlavour.POSIX,
    processors=Counted(logical_processors=8),
    files_present=frozenset({"/b/kernel", "/b/initrd.img", "/b/rootfs.vhd", "/b/rootfs.VHDX", "/b/rootfs.raw"}),
)


Asked = dict[str, Any]


def planned(facts: Facts = FACTS, **asked: Any) -> LcowPlan:  # noqa: ANN401  any option
    return plan_lcow(OptionsLCOW(boot_files_path="/b", **asked), facts, vm_id="v", warn=lambda _: None)


def machine(plan: LcowPlan) -> VirtualMachine:
    assert plan.document.virtual_machine is not None
    return plan.document.virtual_machine


def devices(plan: LcowPlan) -> Devices:
    found = machine(plan).devices
    assert found is not None
    return found


def test_boot_files_are_joined_by_the_host_s_flavour() -> None:
    options = OptionsLCOW(boot_files_path="C:\\b", kernel_file="sub/k", root_fs_file="r")
    assert boot_file_paths(options, Platform.HYPERV, PathFlavour.WINDOWS) == BootFilePaths(kernel="C:\\b\\sub\\k", root_fs="C:\\b\\r")


BROKEN_IN_ORDER: list[tuple[Asked, Asked, type[Exception], str]] = [
    ({"kernel_file": "absent"}, {}, NotFound, "kernel: '/b/absent' not found"),
    ({"root_fs_file": "absent"}, {}, NotFound, "boot file: '/b/absent' not found"),
    ({"scsi_controller_count": 2}, {}, InvalidOptions, "UVM options incorrect: SCSI controller count must be 0 or 1"),
    (
        {},
        {"processors": Refused(reason="r")},
        HostError,
        "failed to get host processor information: failed to retrieve processor and processor topology information: r",
    ),
    ({"cpu_group_id": "g"}, {"build": 20123}, Unsupported, "cpu group assignment on create requires a build of 20124 or higher"),
]


@pytest.mark.parametrize("first", range(len(BROKEN_IN_ORDER)))
def test_of_several_failures_the_earlier_step_s_is_reported(first: int) -> None:
    asked: Asked = {}
    host: Asked = {}
    for options, facts, _, _ in BROKEN_IN_ORDER[first:]:
        asked |= options
        host |= facts
    _, _, error, text = BROKEN_IN_ORDER[first]
    with pytest.raises(error) as caught:
        planned(msgspec.structs.replace(FACTS, **host), **asked)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("asked", "ports"),
    [
        ({}, (1, 109, 0x40000000)),
        ({"forward_stdout": True, "forward_stderr": False}, (1, 109, 0x40000000)),
        ({"forward_stderr": False}, (1, 0x40000000)),
        ({"external_guest_connection": False}, (1, 109)),
        ({"use_guest_connection": False}, (1, 109)),
    ],
)
def test_the_host_listens_for_what_the_guest_will_dial(asked: Asked, ports: tuple[int, ...]) -> None:
    assert planned(**asked).listen_ports == ports


def test_the_host_service_is_told_to_connect_only_when_it_shall() -> None:
    assert machine(planned()).guest_connection is None
    assert machine(planned(use_guest_connection=False, external_guest_connection=False)).guest_connection is None
    assert json.encode(machine(planned(external_guest_connection=False)).guest_connection) == '{"UseVsock":true,"UseConnectedSuspend":true}'


def test_the_vm_begins_with_what_the_plan_gives_it() -> None:
    plan = planned(processor_count=9, memory_size_in_mb=1023, scsi_controller_count=0, vpmem_device_count=3, vpmem_size_bytes=8192)
    assert (plan.processor_count, plan.memory_size_in_mb) == (8, 1024)
    assert (plan.scsi_controller_count, plan.vpmem_max_count, plan.vpmem_max_size_bytes) == (0, 3, 8192)
    assert plan.vpmem_root is None


@pytest.mark.parametrize(
    ("file", "image_format"), [("rootfs.vhd", ImageFormat.VHD), ("rootfs.VHDX", ImageFormat.VHDX), ("rootfs.raw", ImageFormat.VHD)]
)
def test_a_root_disk_takes_the_first_slot_for_good(file: str, image_format: ImageFormat) -> None:
    plan = planned(root_fs_file=file, preferred_root_fs_type=RootFSType.VHD)
    assert plan.vpmem_root == VPMemSlot(host_path=f"/b/{file}", uvm_path="/", removable=False)
    pmem = devices(plan).virtual_pmem
    assert pmem is not None
    assert json.encode(pmem.devices) == f'{{"0":{{"HostPath":"/b/{file}","ReadOnly":true,"ImageFormat":"{image_format}"}}}}'


def initrd_of(plan: LcowPlan) -> str:
    chipset = machine(plan).chipset
    assert chipset is not None
    assert chipset.linux_kernel_direct is not None
    return chipset.linux_kernel_direct.init_rd_path


def test_on_qemu_the_initrd_that_lies_beside_a_root_disk_loads_its_drivers() -> None:
    asked: Asked = {"root_fs_file": "rootfs.vhd", "preferred_root_fs_type": RootFSType.VHD}
    assert boot_file_paths(OptionsLCOW(boot_files_path="/b", **asked), Platform.QEMU, PathFlavour.POSIX).all == {
        "/b/kernel",
        "/b/rootfs.vhd",
        "/b/initrd.img",
    }
    assert initrd_of(planned(**asked)) == "/b/initrd.img"
    alone = msgspec.structs.replace(FACTS, files_present=FACTS.files_present - {"/b/initrd.img"})
    assert initrd_of(planned(alone, **asked)) == ""
    assert initrd_of(planned(msgspec.structs.replace(FACTS, platform=Platform.HYPERV), **asked)) == ""


def test_no_vpmem_and_no_scsi_leave_no_controller() -> None:
    found = devices(planned(vpmem_device_count=0, scsi_controller_count=0))
    assert found.virtual_pmem is None
    assert found.scsi == {}


@pytest.mark.parametrize(
    ("platform", "graphics", "named", "booted"),
    [
        (Platform.QEMU, True, "vmlinux", "kernel"),
        (Platform.QEMU, True, "mine", "mine"),
        (Platform.QEMU, False, "vmlinux", "vmlinux"),
        (Platform.HYPERV, True, "vmlinux", "vmlinux"),
    ],
)
def test_on_qemu_a_guest_with_a_screen_boots_the_image_that_is_told_of_it(
    platform: Platform, named: str, booted: str, *, graphics: bool
) -> None:
    options = OptionsLCOW(boot_files_path="/b", kernel_file=named, enable_graphics_console=graphics)
    assert boot_file_paths(options, platform, PathFlavour.POSIX).kernel == f"/b/{booted}"


def test_a_screen_may_be_offered_by_a_pipe() -> None:
    found = devices(planned(enable_graphics_console=True, graphics_pipe="/run/screen"))
    assert json.encode(found.video_monitor) == '{"ConnectionOptions":{"NamedPipe":"/run/screen"}}'


def test_a_graphics_console_is_a_screen_and_a_keyboard() -> None:
    found = devices(planned(enable_graphics_console=True))
    assert json.encode([found.keyboard, found.enhanced_mode_video, found.video_monitor]) == "[{},{},{}]"
    found = devices(planned())
    assert (found.keyboard, found.enhanced_mode_video, found.video_monitor) == (None, None, None)


def test_a_console_pipe_is_the_first_serial_port() -> None:
    assert json.encode(devices(planned(console_pipe="/c")).com_ports) == '{"0":{"NamedPipe":"/c"}}'
    assert devices(planned()).com_ports == {}


@pytest.mark.parametrize(
    ("iops", "bandwidth", "text"),
    [(0, 0, None), (-1, 0, None), (5, 0, '{"IopsMaximum":5}'), (-5, 7, '{"IopsMaximum":-5,"BandwidthMaximum":7}')],
)
def test_storage_limits_are_there_when_one_of_them_is(iops: int, bandwidth: int, text: str | None) -> None:
    limits = machine(planned(storage_qos_iops_maximum=iops, storage_qos_bandwidth_maximum=bandwidth)).storage_qos
    assert (json.encode(limits) if limits else None) == text


def test_uefi_boots_the_kernel_from_the_boot_folder() -> None:
    chipset = machine(planned(kernel_direct=False)).chipset
    assert chipset is not None
    assert chipset.linux_kernel_direct is None
    assert chipset.uefi is not None
    entry = chipset.uefi.boot_this
    assert entry is not None
    assert (entry.device_type, entry.device_path, entry.vmb_fs_root_path) == ("VmbFs", "\\kernel", "/b")
    assert entry.optional_data.startswith("initrd=/initrd.img ")


def test_an_unknown_root_type_names_neither_root_nor_initrd() -> None:
    chipset = machine(planned(preferred_root_fs_type=2)).chipset
    assert chipset is not None
    assert chipset.linux_kernel_direct is not None
    assert chipset.linux_kernel_direct.init_rd_path == ""


def test_devices_of_the_host_are_at_places_that_stay_the_same() -> None:
    plan = planned(assigned_devices=("0000:01:00.0", "0000:02:00.0"), allow_overcommit=False)
    given = {guid: device.functions[0].device_instance_path for guid, device in devices(plan).virtual_pci.items()}
    assert given == plan.assigned
    assert list(given.values()) == ["0000:01:00.0", "0000:02:00.0"]
    assert planned(assigned_devices=("0000:02:00.0",)).assigned.items() <= given.items()
    assert planned().assigned == {}
