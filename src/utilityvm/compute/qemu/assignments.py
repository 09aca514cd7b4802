"""Devices of the host that come to a running QEMU and go, each at a place behind its bridges; and the memory that they pin."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Final, final

import msgspec

from utilityvm.compute.qemu.assign import NEEDS_MEMORY, OnHost, address_of, check_device, device_words, guid_of, qemu_id
from utilityvm.compute.qemu.jail import Jail, Layer
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.pins import Pins
from utilityvm.kit.errors import Exhausted, Exists, NotFound, QmpError, Unsupported
from utilityvm.schema.requests import ModifySettingRequest

_NOT_SHOWN: Final = "QEMU opens /dev/vfio by its path, and its jail, which is fixed when it starts, shows the devices of the document alone"
_BUSY: Final = "Device or resource busy"  # QEMU's words, of the kernel's
_IN_USE: Final = "another VM, or another user of VFIO, has a device of its IOMMU group: it must give it back first"


class _Given(msgspec.Struct, frozen=True):
    """What is at a place: whose address, and the number of the place."""

    address: str
    place: int


@final
class Assignments:
    """The devices of the host that one machine, `name`, has. `places` are the numbers of the places that they may come to.

    `named` are the addresses that the machine's document has, which alone its `jail` shows; `locked` says that its memory is all there,
    and `pins` lets it be pinned; `look` tells of an address.
    """

    def __init__(
        self,
        monitor: Monitor,
        name: str,
        *,
        places: range,
        named: Collection[str],
        jail: Jail,
        locked: bool,
        pins: Pins,
        look: Callable[[str], OnHost],
    ) -> None:
        self._monitor, self._name = monitor, name
        self._places, self._named, self._jail, self._locked, self._pins, self._look = places, named, jail, locked, pins, look
        self._given: dict[str, _Given] = {}
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def modify(self, request: ModifySettingRequest) -> Mapping[str, object] | None:
        """Carry out a request for a device of the host; None when it is about something else.

        Returns what the guest must be told to find a device that has come: its ``Place``.

        Raises:
            Exists: there is a device at this GUID, or it is given already.
            NotFound: there is none to remove; or the host has none at this address.
            Exhausted: no place is free.
            InvalidOptions, Unsupported, StateError, HostError, ConnectionLost, DeadlineExceeded: it cannot be done.
        """
        guid = guid_of(request)
        if guid is None:
            return None
        async with self._busy[guid]:
            match request.request_type:
                case "Add":
                    return {"Place": await self._add(guid, request)}
                case "Remove":
                    await self._remove(guid, request)
                    return {}
                case _:
                    raise Unsupported(f"{self._name}: {request.resource_path}: RequestType {request.request_type!r}")

    async def _add(self, guid: str, request: ModifySettingRequest) -> int:
        where, address = f"{self._name}: {request.resource_path}", address_of(request)
        if (there := self._given.get(guid)) is not None:
            raise Exists(f"{where}: is {there.address} already")
        if address in {given.address for given in self._given.values()}:
            raise Exists(f"{where}: {address} is given to this machine already")
        if not self._locked:
            raise Unsupported(f"{where}: {address}: {NEEDS_MEMORY}", hint="allow_overcommit=False")
        if Layer.MOUNT in self._jail.layers and address not in self._named:
            hint = "name it when the VM is created: assigned_devices"
            raise Unsupported(f"{where}: {address}: {_NOT_SHOWN}", hint=hint)
        check_device(address, self._look(address), self._jail)
        taken = {given.place for given in self._given.values()}
        place = next((place for place in self._places if place not in taken), None)
        if place is None:
            raise Exhausted(f"{where}: all {len(self._places)} places for devices of the host are taken")
        self._given[guid] = _Given(address, place)
        try:
            await self._monitor.execute("query-status")  # from its answer on it is QEMU that runs, whose limits these are
            self._pins.begin()
            await self._monitor.execute("device_add", device_words(guid, address, place))
        except BaseException as error:
            del self._given[guid]
            if isinstance(error, QmpError):
                error.hint = _IN_USE if _BUSY in error.message else ""
            raise
        return place

    async def _remove(self, guid: str, request: ModifySettingRequest) -> None:
        if guid not in self._given:
            raise NotFound(f"{self._name}: {request.resource_path}: there is no device of the host")
        await self._monitor.unplug(qemu_id(guid))
        del self._given[guid]
