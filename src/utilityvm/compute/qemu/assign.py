"""Devices of the host that a machine is given whole, by VFIO: which are asked for, what must be so on the host, QEMU's words. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from utilityvm.compute.qemu.jail import Jail, Layer
from utilityvm.compute.qemu.modify import behind_bridge, settings
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, StateError, Unsupported
from utilityvm.kit.ids import is_guid
from utilityvm.schema.devices import VirtualPciDevice
from utilityvm.schema.requests import ModifySettingRequest

NEEDS_MEMORY: Final = "AllowOvercommit is true: a device of the host writes into the guest's memory, so that all of it must be there"
"""Why a machine whose memory is not all there is given no device."""

_PATH: Final = re.compile(r"VirtualMachine/Devices/VirtualPci/([^/]+)")
_ADDRESS: Final = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_BRIDGE: Final = 0x0604
_OTHERS: Final = frozenset({"", "pci-stub", "pcieport"})  # drivers that do no DMA, which the kernel lets stay beside ours
_EVERYBODY, _GROUP = 0o006, 0o060


class Function(msgspec.Struct, frozen=True):
    """A PCI device of the host: its address, the driver that has it (``""``: none), and its class, two bytes."""

    address: str
    driver: str
    kind: int


class Node(msgspec.Struct, frozen=True):
    """A device node that QEMU must open: `mode` and `gid` are the file's, `ours` says that we may open it."""

    path: str
    mode: int
    gid: int
    ours: bool


class OnHost(msgspec.Struct, frozen=True):
    """What the host says of one address. `iommu` tells whether it has any IOMMU at work; `function` is None when no device is there.

    `group` is the number of its IOMMU group, ``""`` for none, and `others` are those in it; the nodes are VFIO's, None where missing.
    """

    iommu: bool
    function: Function | None = None
    group: str = ""
    others: tuple[Function, ...] = ()
    container: Node | None = None
    node: Node | None = None


class Shown(msgspec.Struct, frozen=True):
    """What QEMU must get to for the devices that it is given: files that it reads, nodes that it opens, groups of users that may."""

    files: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    gids: tuple[int, ...] = ()


def guid_of(request: ModifySettingRequest) -> str | None:
    """Return the GUID of the place that a request is about, None when it is about something else.

    Raises:
        InvalidOptions: what stands there is no GUID.
    """
    match = _PATH.fullmatch(request.resource_path)
    if match is None:
        return None
    guid = match[1].lower()
    if not is_guid(guid):
        raise InvalidOptions(f"{request.resource_path}: {match[1]!r} is no GUID")
    return guid


def address_of(request: ModifySettingRequest) -> str:
    """Return the address of the device that is to be given.

    Raises:
        InvalidOptions: the settings make no sense.
        Unsupported: parts of them that are not carried out.
    """
    path, functions = request.resource_path, settings(request, VirtualPciDevice).functions
    if len(functions) != 1:
        raise Unsupported(f"{path}: {len(functions)} Functions: exactly one is carried out, each other at a place of its own")
    if functions[0].virtual_function:
        raise Unsupported(f"{path}: VirtualFunction {functions[0].virtual_function}: on this host it has an address of its own; name that")
    address = functions[0].device_instance_path.lower()
    if not _ADDRESS.fullmatch(address):
        raise InvalidOptions(f"{path}: {functions[0].device_instance_path!r} is no PCI address, as 0000:01:00.0")
    return address


def check_device(address: str, host: OnHost, jail: Jail) -> None:
    """Refuse a device that QEMU, in this jail, could not be given.

    Raises:
        NotFound: there is no such device.
        Unsupported: the host cannot keep a device from the rest of its memory.
        StateError: somebody else has it, or has a device that shares its IOMMU group.
        HostError: QEMU may not open what VFIO offers.
    """
    device = f"PCI device {address}"
    if host.function is None:
        raise NotFound(f"{device}: this host has none at this address", hint="lspci -D lists them")
    if not host.iommu:
        hint = "turn it on in the firmware (VT-d, AMD-Vi) and by intel_iommu=on or amd_iommu=on on the host kernel's command line"
        raise Unsupported(f"{device}: no IOMMU is at work on this host: the device could write anywhere in its memory", hint=hint)
    if not host.group:
        raise Unsupported(f"{device}: no IOMMU of this host covers it: it could write anywhere in the host's memory")
    if not _is_vfio(host.function):
        raise StateError(device, _held(host.function), "be given to a VM", hint=_rebind(host.function))
    for other in host.others:
        if not _is_harmless(other):
            who = f"PCI device {other.address}, which shares IOMMU group {host.group} with it, is {_held(other)}"
            raise StateError(device, who, "be given to a VM", hint=_rebind(other))
    for path, node in (("/dev/vfio/vfio", host.container), (f"/dev/vfio/{host.group}", host.node)):
        if node is None:
            raise HostError(f"{device}: {path} does not exist", hint="modprobe vfio-pci, and look at the kernel's log")
        if not _may_open(node, jail):
            who = "QEMU, which is a user of its own," if Layer.OWN_USER in jail.layers else "this user"
            hint = f"chgrp kvm {path}; chmod 660 {path} (or another group, by a rule of udev for the subsystem vfio)"
            raise HostError(f"{device}: {who} may not open {path}: its mode is {node.mode & 0o777:04o}, its group {node.gid}", hint=hint)


def shown(hosts: Mapping[str, OnHost], jail: Jail) -> Shown:
    """Return what must be shown to QEMU for the devices at these addresses, all of which `check_device` let pass."""
    nodes = {node.path: node for host in hosts.values() for node in (host.container, host.node) if node is not None}
    own = Layer.OWN_USER in jail.layers
    gids = {node.gid for node in nodes.values() if own and node.mode & _EVERYBODY != _EVERYBODY}
    return Shown(tuple(_folder(address) for address in hosts), tuple(nodes), tuple(sorted(gids)))


def qemu_id(guid: str) -> str:
    """Return QEMU's name of the device at a place."""
    return f"vpci-{guid}"


def device_words(guid: str, address: str, place: int) -> Mapping[str, object]:
    """Return the device that the guest sees at the place of this number behind the bridges."""
    return {"driver": "vfio-pci", "id": qemu_id(guid), "host": address, **behind_bridge(place)}


def _is_vfio(function: Function) -> bool:
    return function.driver.replace("_", "-").endswith("vfio-pci")  # vendors have variants of it


def _is_harmless(function: Function) -> bool:
    return _is_vfio(function) or function.driver in _OTHERS or function.kind == _BRIDGE


def _held(function: Function) -> str:
    return f"bound to the driver {function.driver}" if function.driver else "bound to no driver"


def _may_open(node: Node, jail: Jail) -> bool:
    if Layer.OWN_USER not in jail.layers:
        return node.ours
    return node.mode & _EVERYBODY == _EVERYBODY or (node.gid != 0 and node.mode & _GROUP == _GROUP)


def _folder(address: str) -> str:
    return f"/sys/bus/pci/devices/{address}"


def _rebind(function: Function) -> str:
    return "; ".join(_rebinding(function))


def _rebinding(function: Function) -> Iterator[str]:
    yield "when nothing on the host needs it any more: modprobe vfio-pci"
    yield f"echo vfio-pci > {_folder(function.address)}/driver_override"
    if function.driver:
        yield f"echo {function.address} > {_folder(function.address)}/driver/unbind"
    yield f"echo {function.address} > /sys/bus/pci/drivers_probe"
