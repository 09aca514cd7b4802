"""Network adapters that come to a running QEMU and go, step by step with an undo for each, as `hotplug` does with disks."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import final

import msgspec

from utilityvm.compute.nic import Wire
from utilityvm.compute.qemu.adapters import adapter, adapter_id, device, netdev
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.undo import Undo, take_back, take_out
from utilityvm.kit.errors import Exhausted, Exists, NotFound, Unsupported
from utilityvm.schema.requests import ModifySettingRequest


class _Plugged(msgspec.Struct):
    """An adapter in `place`, and how it is taken out again."""

    place: int
    undo: list[Undo] = msgspec.field(default_factory=list)


@final
class Nics:
    """The adapters of one machine, which are in `places`; `name` is the machine's."""

    def __init__(self, name: str, places: Sequence[int]) -> None:
        self._name, self._places = name, places
        self._wires: dict[str, Wire] = {}
        self._plugged: dict[str, _Plugged] = {}
        self._busy: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def offer(self, endpoint_id: str, wire: Wire) -> None:
        """See `compute.ports.Wired.offer`."""
        if endpoint_id in self._wires:
            raise Exists(f"{self._name}: the endpoint {endpoint_id} was offered before")
        self._wires[endpoint_id] = wire

    @property
    def there(self) -> list[str]:
        """The adapters that are plugged in, in words."""
        return [f"the network adapter {nic}" for nic in self._plugged]

    async def modify(self, request: ModifySettingRequest, monitor: Monitor) -> bool:
        """Carry out a request for an adapter; return False when it is about something else. See `compute.ports.Modifiable.modify`.

        Raises:
            Exists: there is such an adapter.
            NotFound: there is none to remove; or nobody has offered its endpoint.
            Exhausted: the machine has no place for more.
            InvalidOptions, Unsupported, HostError, ConnectionLost, DeadlineExceeded: it cannot be done.
        """
        nic = adapter_id(request)
        if not nic:
            return False
        async with self._busy[nic]:
            match request.request_type:
                case "Add":
                    await self._add(nic, request, monitor)
                case "Remove":
                    await self._remove(nic)
                case other:
                    text = "an adapter is added and removed, and not changed"
                    raise Unsupported(f"{self._name}: {request.resource_path}: RequestType {other!r}: {text}")
        return True

    async def _add(self, nic: str, request: ModifySettingRequest, monitor: Monitor) -> None:
        if nic in self._plugged:
            raise Exists(f"{self._name}: the network adapter {nic} exists already")
        wanted = adapter(request)
        wire = self._wires.get(wanted.endpoint_id)
        if wire is None:
            text = f"{self._name}: {request.resource_path}: EndpointId: nobody has offered the endpoint {wanted.endpoint_id}"
            raise NotFound(text, hint="connect the VM to a network, which offers one")
        plugged = self._plugged[nic] = _Plugged(self._place())
        name = f"nic{plugged.place}"
        try:
            end = await wire()
            try:
                await monitor.execute("getfd", {"fdname": name}, fds=[end.fd])
            finally:
                os.close(end.fd)
            plugged.undo.append(lambda: monitor.execute("closefd", {"fdname": name}))
            await monitor.execute("netdev_add", netdev(name, end.kind))
            plugged.undo[:] = [lambda: monitor.execute("netdev_del", {"id": name})]
            await monitor.execute("device_add", device(name, wanted, plugged.place, end.mtu))
            plugged.undo.append(lambda: monitor.unplug(name))
        except BaseException:
            await take_back(plugged.undo, self._name, nic)
            del self._plugged[nic]
            raise

    async def _remove(self, nic: str) -> None:
        plugged = self._plugged.get(nic)
        if plugged is None:
            raise NotFound(f"{self._name}: there is no network adapter {nic}")
        await take_out(plugged.undo)
        del self._plugged[nic]

    def _place(self) -> int:
        taken = {plugged.place for plugged in self._plugged.values()}
        free = next((place for place in self._places if place not in taken), None)
        if free is None:
            raise Exhausted(f"{self._name}: there are {len(self._places)} network adapters, and no place for more", hint="remove one")
        return free
