"""Network adapters of a machine in QEMU's words. Pure."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from utilityvm.compute.nic import NicKind
from utilityvm.compute.qemu.modify import behind_bridge, settings
from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.schema.devices import NetworkAdapter
from utilityvm.schema.requests import ModifySettingRequest

MAX_ADAPTERS: Final = 8
"""Network adapters of a machine; so many of the places for other devices are theirs."""

_ADAPTER: Final = re.compile(r"VirtualMachine/Devices/NetworkAdapters/(.+)")
_MAC: Final = re.compile(r"[0-9a-f]{2}(?:([-:])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}", re.IGNORECASE)


class Adapter(msgspec.Struct, frozen=True):
    """An adapter on the endpoint `endpoint_id`; `mac` is its hardware address as QEMU writes it."""

    endpoint_id: str
    mac: str


def adapter_id(request: ModifySettingRequest) -> str:
    """Return the id of the adapter that a request is about, ``""`` when it is about something else."""
    match = _ADAPTER.fullmatch(request.resource_path)
    return match[1] if match else ""


def adapter(request: ModifySettingRequest) -> Adapter:
    """Return the adapter that is to be added.

    Raises:
        InvalidOptions: the settings make no sense.
        Unsupported: parts of them that are not carried out.
    """
    wanted = settings(request, NetworkAdapter)
    if wanted.iov_settings is not None:
        raise Unsupported(f"{request.resource_path}: IovSettings: what a host's network card does for a guest, QEMU's adapters do not")
    if not wanted.endpoint_id:
        raise InvalidOptions(f"{request.resource_path}: EndpointId: missing")
    if not _MAC.fullmatch(wanted.mac_address):
        raise InvalidOptions(f"{request.resource_path}: MacAddress: {wanted.mac_address!r} is no hardware address")
    mac = wanted.mac_address.replace("-", ":").lower()
    if int(mac[:2], 16) & 1:
        raise InvalidOptions(f"{request.resource_path}: MacAddress: {wanted.mac_address} is a group's")
    return Adapter(wanted.endpoint_id, mac)


_NETDEVS: Final = {NicKind.STREAM: "socket", NicKind.TAP: "tap"}


def netdev(name: str, kind: NicKind) -> Mapping[str, object]:
    """Return the host's side, on a descriptor that QEMU knows as `name`."""
    # Not `stream`, which writes the same frames: it opens its descriptor in a thread that knows no name of the monitor's (7.2).
    return {"type": _NETDEVS[kind], "id": name, "fd": name}


def device(name: str, wanted: Adapter, place: int, mtu: int) -> Mapping[str, object]:
    """Return the guest's side, in `place`, which counts as those of persistent memory do."""
    words = {"driver": "virtio-net-pci", "id": name, "netdev": name, "mac": wanted.mac, "romfile": ""}
    return {**words, **behind_bridge(place), **({"host_mtu": mtu} if mtu else {})}
