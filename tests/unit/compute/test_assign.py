"""Whether a device of the host can be given to a machine, by the files in which a host's kernel tells of it."""

from pathlib import Path

import pytest

from utilityvm.compute.qemu.assign import Function, Node, OnHost, Shown, address_of, check_device, device_words, guid_of, shown
from utilityvm.compute.qemu.jail import ALWAYS, Jail, Layer
from utilityvm.compute.qemu.pci import look_at
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.schema.requests import ModifySettingRequest

CARD, AUDIO, BRIDGE = "0000:01:00.0", "0000:01:00.1", "0000:00:01.0"
GUID = "6b8f1f4d-3c2a-4e57-9a61-0f1e2d3c4b5a"
OURS, OWN = Jail(layers=(Layer.MOUNT, *ALWAYS)), Jail(layers=(Layer.OWN_USER, Layer.MOUNT, *ALWAYS))


class Host:
    """A host's /sys and /dev below a folder, with a graphics card, its audio device and their bridge in one group."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/kernel/iommu_groups", "dev/vfio"):
            (root / folder).mkdir(parents=True)
        self.device(BRIDGE, 0x060400, "pcieport", "12")
        self.device(CARD, 0x030000, "vfio-pci", "12")
        self.device(AUDIO, 0x040300, "vfio-pci", "12")
        self.node("vfio", 0o666)
        self.node("12", 0o660)

    def device(self, address: str, kind: int, driver: str, group: str) -> None:
        folder = self.root / "sys/bus/pci/devices" / address
        folder.mkdir(exist_ok=True)
        (folder / "class").write_text(f"{kind:#08x}\n")
        self.bind(address, driver)
        if group:
            (folder / "iommu_group").symlink_to(f"../../../../kernel/iommu_groups/{group}")
            devices = self.root / "sys/kernel/iommu_groups" / group / "devices"
            devices.mkdir(parents=True, exist_ok=True)
            (devices / address).symlink_to(f"../../../../bus/pci/devices/{address}")

    def bind(self, address: str, driver: str) -> None:
        link = self.root / "sys/bus/pci/devices" / address / "driver"
        link.unlink(missing_ok=True)
        if driver:
            link.symlink_to(f"../../drivers/{driver}")

    def node(self, name: str, mode: int) -> None:
        node = self.root / "dev/vfio" / name
        node.touch()
        node.chmod(mode)

    def no_iommu(self) -> None:
        for group in (self.root / "sys/kernel/iommu_groups").iterdir():
            for device in (group / "devices").iterdir():
                (self.root / "sys/bus/pci/devices" / device.name / "iommu_group").unlink()
                device.unlink()
            (group / "devices").rmdir()
            group.rmdir()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_is_read_as_its_kernel_tells_it(host: Host) -> None:
    found = look_at(CARD, host.root)
    assert (found.iommu, found.function, found.group) == (True, Function(CARD, "vfio-pci", 0x0300), "12")
    assert found.others == (Function(BRIDGE, "pcieport", 0x0604), Function(AUDIO, "vfio-pci", 0x0403))
    gid = (host.root / "dev/vfio/12").stat().st_gid
    assert found.node is not None
    assert (found.node.path, found.node.mode & 0o777, found.node.gid, found.node.ours) == ("/dev/vfio/12", 0o660, gid, True)
    assert found.container is not None
    assert found.container.path == "/dev/vfio/vfio"


@pytest.mark.parametrize("driver", ["vfio-pci", "mlx5_vfio_pci", "pci-stub", "pcieport", ""])
def test_what_does_no_dma_may_stay_in_the_group(host: Host, driver: str) -> None:
    host.bind(AUDIO, driver)
    check_device(CARD, look_at(CARD, host.root), OURS)


def test_a_bridge_may_stay_whatever_its_driver(host: Host) -> None:
    host.bind(BRIDGE, "shpchp")
    check_device(CARD, look_at(CARD, host.root), OURS)


@pytest.mark.parametrize(
    ("change", "error", "words", "hint"),
    [
        (lambda host: host.no_iommu(), Unsupported, "no IOMMU is at work on this host", "intel_iommu=on"),
        (lambda host: (host.root / "sys/bus/pci/devices" / CARD / "iommu_group").unlink(), Unsupported, "no IOMMU of this host covers", ""),
        (lambda host: (host.root / "sys/bus/pci/devices" / CARD / "class").unlink(), NotFound, "this host has none", "lspci"),
        (
            lambda host: host.bind(CARD, "nouveau"),
            StateError,
            "cannot be given to a VM while bound to the driver nouveau",
            "; ".join(
                [
                    f"echo vfio-pci > /sys/bus/pci/devices/{CARD}/driver_override",
                    f"echo {CARD} > /sys/bus/pci/devices/{CARD}/driver/unbind",
                    f"echo {CARD} > /sys/bus/pci/drivers_probe",
                ]
            ),
        ),
        (
            lambda host: host.bind(CARD, ""),
            StateError,
            "while bound to no driver",
            f"echo vfio-pci > /sys/bus/pci/devices/{CARD}/driver_override; echo {CARD} > /sys/bus/pci/drivers_probe",
        ),
        (
            lambda host: host.bind(AUDIO, "snd_hda_intel"),
            StateError,
            f"while PCI device {AUDIO}, which shares IOMMU group 12 with it, is bound to the driver snd_hda_intel",
            f"echo {AUDIO} > /sys/bus/pci/devices/{AUDIO}/driver/unbind",
        ),
        (lambda host: (host.root / "dev/vfio/vfio").unlink(), HostError, "/dev/vfio/vfio does not exist", "modprobe vfio-pci"),
        (lambda host: (host.root / "dev/vfio/12").unlink(), HostError, "/dev/vfio/12 does not exist", "modprobe vfio-pci"),
    ],
    ids=["no IOMMU", "no group", "no device", "another driver", "no driver", "a neighbour", "no VFIO", "no node"],
)
def test_what_is_refused_is_named_with_the_reason_and_what_to_do(
    host: Host, change: "object", error: type[UtilityVMError], words: str, hint: str
) -> None:
    assert callable(change)
    change(host)
    with pytest.raises(error) as caught:
        check_device(CARD, look_at(CARD, host.root), OURS)
    assert f"PCI device {CARD}" in caught.value.message
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_a_host_without_pci_has_no_device(tmp_path: Path) -> None:
    assert look_at(CARD, tmp_path) == OnHost(iommu=False)


def nodes(mode: int, gid: int, *, ours: bool) -> OnHost:
    node = Node("/dev/vfio/12", mode, gid, ours)
    return OnHost(True, Function(CARD, "vfio-pci", 0x0300), "12", container=Node("/dev/vfio/vfio", 0o666, 0, ours=True), node=node)


@pytest.mark.parametrize(
    ("mode", "gid", "ours", "jail"),
    [(0o600, 0, True, OURS), (0o660, 36, False, OWN), (0o666, 0, False, OWN)],
    ids=["ours", "a group's", "everybody's"],
)
def test_qemu_may_open_what_its_user_or_a_group_may(mode: int, gid: int, ours: bool, jail: Jail) -> None:
    check_device(CARD, nodes(mode, gid, ours=ours), jail)


@pytest.mark.parametrize(
    ("mode", "gid", "ours", "jail", "who"),
    [
        (0o600, 0, True, OWN, "QEMU, which is a user of its own,"),
        (0o660, 0, True, OWN, "QEMU, which is a user of its own,"),
        (0o640, 36, True, OWN, "QEMU, which is a user of its own,"),
        (0o600, 0, False, OURS, "this user"),
    ],
)
def test_a_node_that_qemu_may_not_open_is_refused_with_who_may(mode: int, gid: int, ours: bool, jail: Jail, who: str) -> None:
    with pytest.raises(HostError, match=f"{who} may not open /dev/vfio/12: its mode is {mode:04o}, its group {gid}") as caught:
        check_device(CARD, nodes(mode, gid, ours=ours), jail)
    assert "chgrp kvm /dev/vfio/12; chmod 660 /dev/vfio/12" in caught.value.hint


def test_qemu_is_shown_the_devices_and_their_nodes_once_and_gets_the_groups_that_may_open_them() -> None:
    hosts = {CARD: nodes(0o660, 36, ours=True), AUDIO: nodes(0o660, 36, ours=True)}
    files = (f"/sys/bus/pci/devices/{CARD}", f"/sys/bus/pci/devices/{AUDIO}")
    assert shown(hosts, OWN) == Shown(files, ("/dev/vfio/vfio", "/dev/vfio/12"), (36,))
    assert shown(hosts, OURS).gids == ()
    assert shown({}, OWN) == Shown()


def request(path: str = CARD, guid: str = GUID, **members: object) -> ModifySettingRequest:
    settings = {"Functions": [{"DeviceInstancePath": path} | members]}
    return ModifySettingRequest(resource_path=f"VirtualMachine/Devices/VirtualPci/{guid}", request_type="Add", settings=settings)


def test_a_request_names_a_place_by_guid_and_a_device_by_address() -> None:
    assert (guid_of(request(guid=GUID.upper())), address_of(request("0000:0A:1F.7"))) == (GUID, "0000:0a:1f.7")
    assert guid_of(ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/0")) is None
    with pytest.raises(InvalidOptions, match="'x' is no GUID"):
        guid_of(request(guid="x"))


@pytest.mark.parametrize("address", ["", "01:00.0", "0000:01:20.0", "0000:01:00.8", "PCIP\\VEN_1", "0000:01:00.0,x=1", "../0000:01:00.0"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidOptions, match="is no PCI address, as 0000:01:00.0"):
        address_of(request(address))


def test_a_virtual_function_is_named_by_its_own_address() -> None:
    with pytest.raises(Unsupported, match="VirtualFunction 3: on this host it has an address of its own"):
        address_of(request(VirtualFunction=3))
    two = ModifySettingRequest(resource_path=request().resource_path, settings={"Functions": [{}, {}]})
    with pytest.raises(Unsupported, match="2 Functions: exactly one"):
        address_of(two)


def test_the_device_is_behind_the_bridge_that_its_place_says() -> None:
    words = {"driver": "vfio-pci", "id": f"vpci-{GUID}", "host": CARD, "bus": "bridge2", "addr": "0x3"}
    assert device_words(GUID, CARD, 64) == words


@pytest.mark.skipif(look_at("", Path("/")).iommu, reason="this host has an IOMMU")
def test_this_host_which_has_no_iommu_is_found_out() -> None:
    devices = Path("/sys/bus/pci/devices")
    address = next((entry.name for entry in sorted(devices.iterdir())), "") if devices.exists() else ""
    expected = Unsupported if address else NotFound
    with pytest.raises(expected):
        check_device(address or CARD, look_at(address or CARD), OURS)
