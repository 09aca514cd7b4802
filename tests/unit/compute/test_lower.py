"""Every field of the schema is carried, recorded or refused by its path; nothing is ignored."""

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.lower import MAX_PROCESSORS, Fd, check, lower, max_memory_mb
from utilityvm.compute.qemu.treatment import LACKS, TREATMENT, Treatment
from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import Chipset, ComputeSystem, LinuxKernelDirect
from utilityvm.schema.node import Node

OBJECT: dict[str, Any] = {}  # "it is there, with what the base says of it"
FACTS = HostFacts(qemu="/qemu", version=(7, 2, 0), accel=Accel.TCG, reason="", processors=1, address_bits=40)
BASE: dict[str, Any] = {
    "SchemaVersion": {"Major": 2, "Minor": 1},
    "VirtualMachine": {
        "StopOnReset": True,
        "Chipset": {"LinuxKernelDirect": {"KernelFilePath": "/boot/vmlinux"}},
        "ComputeTopology": {"Memory": {"SizeInMB": 64, "AllowOvercommit": True}, "Processor": {"Count": 1}},
        "Devices": {
            "ComPorts": {"0": {"NamedPipe": "/run/console"}},
            "VideoMonitor": {"ConnectionOptions": {"NamedPipe": "/run/screen"}},
            "Scsi": {"0": {"Attachments": {"0": {"Type": "VirtualDisk", "Path": "/disk"}}}},
            "VirtualPMem": {"MaximumCount": 3, "Devices": {"0": {"HostPath": "/layer", "ReadOnly": True}}},
        },
    },
    "ShouldTerminateOnLastHandleClosed": True,
}


def document(builtins: dict[str, Any]) -> ComputeSystem:
    return msgspec.convert(builtins, ComputeSystem)


def with_value(path: tuple[str, ...], value: object) -> ComputeSystem:
    """Return the base document with `value` at `path`."""
    builtins = msgspec.json.decode(msgspec.json.encode(BASE))
    here = builtins
    for key in path[:-1]:
        here = here.setdefault(key, {}) if isinstance(here, dict) else here[0]
    here[path[-1]] = here.get(path[-1], {}) if value == OBJECT else value
    return document(builtins)


def fields(kind: type[Node], path: tuple[str, ...] = (), pattern: str = "$") -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """List every member below `kind`: its path with "0" for a key, its pattern and a value that is not zero."""
    hints = get_type_hints(kind)
    for member in msgspec.structs.fields(kind):
        hint = hints[member.name]
        here, name = (*path, member.encode_name), f"{pattern}.{member.encode_name}"
        if get_origin(hint) in {types.UnionType, typing.Union}:
            hint = next(part for part in get_args(hint) if part not in {type(None), msgspec.UnsetType})
        if get_origin(hint) is dict:
            inner = get_args(hint)[1]
            yield here, name, {"0": {}}
            yield from fields(inner, (*here, "0"), f"{name}[*]")
        elif get_origin(hint) is list:
            yield here, name, [{str: "x", int: 3}.get(get_args(hint)[0], {})]
        elif hint is object:
            yield here, name, {"x": 1}
        elif issubclass(hint, Node):
            yield here, name, OBJECT
            yield from fields(hint, here, name)
        else:
            yield here, name, {bool: True, int: 3, str: "/x"}[hint]


FIELDS = list(fields(ComputeSystem))


def test_the_walk_finds_the_schema() -> None:
    patterns = {pattern for _, pattern, _ in FIELDS}
    assert len(patterns) > 90
    assert set(LACKS) <= patterns
    assert {pattern.removesuffix("[*]") for pattern in TREATMENT} <= patterns


@pytest.mark.parametrize(("path", "pattern", "value"), FIELDS, ids=[pattern for _, pattern, _ in FIELDS])
def test_no_field_is_ignored(path: tuple[str, ...], pattern: str, value: object) -> None:
    """Saying it (or, where the base says it, unsaying it) changes the launch, or is refused by its path, or it is a recorded field."""
    said = with_value(path, value)
    if said == document(BASE) and value is True:
        said = with_value(path, False)
    try:
        launch = lower(VmId("x"), said, FACTS)
    except (Unsupported, InvalidOptions) as error:
        refused = [line.strip() for line in str(error).splitlines()[1:]]
        assert len(refused) == 1
        named = refused[0].split(": ")[0].replace('["0"]', "[*]")
        assert pattern == named or pattern.startswith((f"{named}.", f"{named}[*]")) or named.startswith(pattern), refused
    else:
        recorded = TREATMENT[pattern] is Treatment.RECORDED
        object_alone = value == OBJECT  # its members are cases of their own
        assert recorded or object_alone or launch != lower(VmId("x"), document(BASE), FACTS)


def test_all_refusals_come_at_once_and_in_order() -> None:
    wrong_memory = {"SizeInMB": 1 << 30, "EnableColdDiscardHint": True, "EnableDeferredCommit": True}
    wrong_memory |= {"LowMmioGapInMB": 3073, "HighMmioGapInMB": -1}
    builtins: Mapping[str, Any] = {
        "VirtualMachine": {
            "StorageQoS": {"IopsMaximum": -1},
            "Chipset": {"LinuxKernelDirect": {}, "UseUtc": True},
            "ComputeTopology": {
                "Memory": wrong_memory,
                "Processor": {"Count": 1, "Limit": -5, "ExposeVirtualizationExtensions": True},
            },
            "Devices": {"ComPorts": {"0": {"NamedPipe": r"\\.\pipe\x"}, "1": {"NamedPipe": "/x"}}, "Mouse": {}},
        },
        "SchemaVersion": {"Major": 1},
    }
    with pytest.raises(InvalidOptions) as caught:
        lower(VmId("x"), document(dict(builtins)), FACTS)
    vm = "$.VirtualMachine"
    assert [problem.path for problem in caught.value.problems] == [
        f"{vm}.Chipset.UseUtc",
        f"{vm}.ComputeTopology.Processor.ExposeVirtualizationExtensions",
        f"{vm}.Devices.Mouse",
        "$.SchemaVersion.Major",
        "$.ShouldTerminateOnLastHandleClosed",
        f"{vm}.StopOnReset",
        f"{vm}.Chipset.LinuxKernelDirect.KernelFilePath",
        f"{vm}.StorageQoS.IopsMaximum",
        f"{vm}.ComputeTopology.Memory.EnableColdDiscardHint",
        f"{vm}.ComputeTopology.Memory.EnableDeferredCommit",
        f"{vm}.ComputeTopology.Memory.LowMmioGapInMB",
        f"{vm}.ComputeTopology.Memory.HighMmioGapInMB",
        f"{vm}.ComputeTopology.Memory.SizeInMB",
        f"{vm}.ComputeTopology.Processor.Limit",
        f'{vm}.Devices.ComPorts["0"].NamedPipe',
        f'{vm}.Devices.ComPorts["1"]',
    ]
    assert all(problem.path in str(caught.value) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("VirtualMachine.ComputeTopology.Memory.LowMmioGapInMB", 4096, "4096 MiB: at most 3072 MiB"),
        ("VirtualMachine.ComputeTopology.Memory.HighMmioBaseInMB", 65536, "QEMU places this gap itself"),
        ("VirtualMachine.ComputeTopology.Processor.Count", MAX_PROCESSORS + 1, "at most 255"),
        ("VirtualMachine.Devices.Scsi", {str(number): {} for number in range(5)}, "5 controllers: at most 4"),
        ("VirtualMachine.StopOnReset", False, "a guest that resets itself is ended"),
        ("VirtualMachine.Chipset", {"Uefi": {"Console": "ComPort1"}}, "use LinuxKernelDirect"),
    ],
)
def test_a_refusal_says_which_field_and_why(path: str, value: object, says: str) -> None:
    with pytest.raises(Unsupported) as caught:
        check(with_value(tuple(path.split(".")), value))
    assert len(str(caught.value).splitlines()) == 2
    assert f"$.{path}" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("chipset", [None, Chipset(), Chipset(linux_kernel_direct=LinuxKernelDirect(init_rd_path="/initrd"))])
def test_a_machine_without_a_kernel_is_invalid(chipset: Chipset | None) -> None:
    base = document(BASE)
    assert base.virtual_machine is not None
    without = msgspec.structs.replace(base, virtual_machine=msgspec.structs.replace(base.virtual_machine, chipset=chipset))
    with pytest.raises(InvalidOptions, match=r"LinuxKernelDirect.*: missing"):
        check(without)


@pytest.mark.parametrize(
    ("bits", "mib"), [(36, 28 << 10), (39, (512 - 36) << 10), (40, (1012 - 36) << 10), (46, (65536 - 1024 - 36) << 10)]
)
def test_memory_is_bounded_by_the_address_bits(bits: int, mib: int) -> None:
    assert max_memory_mb(bits) == mib


def test_a_larger_hole_for_devices_leaves_less_for_memory() -> None:
    assert max_memory_mb(40, 100 << 10) == (1012 - 4 - 100) << 10
    assert max_memory_mb(40, 1 << 40) == 0


def test_the_bound_on_memory_is_checked_only_where_it_is_known() -> None:
    check(with_value(("VirtualMachine", "ComputeTopology", "Memory", "SizeInMB"), 1 << 40))


def test_words_carry_the_descriptors_numbers() -> None:
    words = lower(VmId("x"), document(BASE), FACTS).words({fd: number for number, fd in enumerate(Fd, start=50)})
    assert "socket,id=monitor,fd=54" in words
    assert "memory-backend-file,id=ram0,size=64M,mem-path=/proc/self/fd/50,share=on" in words
    assert not any("<" in word for word in words)


# -- devices from the start ---------------------------------------------------------------------------------------------


def with_devices(**devices: object) -> ComputeSystem:
    return with_value(("VirtualMachine", "Devices"), devices)


def test_qemu_waits_for_what_is_plugged_in_before_its_guest_runs() -> None:
    launch = lower(VmId("x"), document(BASE), FACTS)
    assert "-S" in launch.argv
    assert [(request.request_type, request.resource_path) for request in launch.present] == [
        ("Add", "VirtualMachine/Devices/Scsi/0/Attachments/0"),
        ("Add", "VirtualMachine/Devices/VirtualPMem/Devices/0"),
    ]
    bare = lower(VmId("x"), with_devices(Plan9={}), FACTS)
    assert bare.present == ()
    assert "-S" not in bare.argv


@pytest.mark.parametrize(
    ("line", "root"),
    [
        ("quiet root=/dev/pmem0 ro -- x", "pmem0"),
        ("root=/dev/pmem01", ""),
        ("quiet -- root=/dev/pmem0", ""),
        ("-- root=/dev/pmem0", ""),
        ("", ""),
    ],
)
def test_the_root_is_what_the_kernels_line_says(line: str, root: str) -> None:
    said = with_value(("VirtualMachine", "Chipset", "LinuxKernelDirect", "KernelCmdLine"), line)
    assert lower(VmId("x"), said, FACTS).root == root


DISK = {"Type": "VirtualDisk", "Path": "/d"}
NIC = {"EndpointId": "e", "MacAddress": "02-00-00-00-00-01"}
LAYER = {"HostPath": "/l", "ReadOnly": True}


@pytest.mark.parametrize(
    ("devices", "path", "said"),
    [
        ({"Scsi": {"0": {"Attachments": {"64": DISK}}}}, 'Scsi["0"].Attachments["64"]', "the machine has 1 SCSI controllers of 64 disks"),
        ({"Scsi": {"1": {"Attachments": {"0": DISK}}}}, 'Scsi["1"].Attachments["0"]', "the machine has 1 SCSI"),
        ({"Scsi": {"0": {"Attachments": {"a": DISK}}}}, 'Scsi["0"].Attachments["a"]', "a place is a number"),
        ({"Scsi": {"0": {"Attachments": {"1": DISK, "01": DISK}}}}, 'Scsi["0"].Attachments["01"]', "there is another at place scsi0-1"),
        ({"Scsi": {"0": {"Attachments": {"0": DISK | {"Type": "Iso"}}}}}, 'Scsi["0"].Attachments["0"]', "Type 'Iso': only"),
        ({"Scsi": {"0": {"Attachments": {"0": DISK | {"Path": "d"}}}}}, 'Scsi["0"].Attachments["0"]', "'d' is no absolute path"),
        ({"VirtualPMem": {"MaximumCount": 2, "Devices": {"2": LAYER}}}, 'VirtualPMem.Devices["2"]', "the machine has at most 2"),
        ({"NetworkAdapters": {"n": {"MacAddress": "02-00-00-00-00-01"}}}, 'NetworkAdapters["n"]', "EndpointId: missing"),
        ({"NetworkAdapters": {"n": {"EndpointId": "e", "MacAddress": "x"}}}, 'NetworkAdapters["n"]', "MacAddress: 'x' is no hardware"),
        ({"NetworkAdapters": {str(n): NIC for n in range(9)}}, "NetworkAdapters", "9 adapters: at most 8"),
        (
            {"VirtualPMem": {"MaximumCount": 2, "Devices": {"1": LAYER | {"ReadOnly": False}}}},
            'VirtualPMem.Devices["1"]',
            "ReadOnly false: persistent memory is read-only",
        ),
    ],
)
def test_a_device_that_cannot_be_there_is_refused_by_its_path(devices: dict[str, object], path: str, said: str) -> None:
    with pytest.raises((Unsupported, InvalidOptions)) as caught:
        check(with_devices(**devices))
    (line,) = str(caught.value).splitlines()[1:]
    assert line.strip().startswith(f"$.VirtualMachine.Devices.{path}: {said}")
