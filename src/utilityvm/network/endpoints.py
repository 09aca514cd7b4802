"""Endpoints that a VM's agent finds on a Linux host: what of `network` can be plugged into a VM that runs."""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, final

from msgspec import structs

from utilityvm.compute.nic import NicEnd, Wire
from utilityvm.kit.errors import NotFound, StateError, Unsupported
from utilityvm.kit.ids import NULL_GUID, VmId
from utilityvm.network.uplink import Uplink, uplink_of
from utilityvm.options.network import BridgeNetwork, NamespaceNetwork, NetworkWish, UserNetwork
from utilityvm.schema.hns import HNSEndpoint, Namespace
from utilityvm.wire.hcn import HostComputeEndpoint

USER: Final = "user"
"""The name of the endpoint whose network needs no rights."""

_EVERYTHING: Final = frozenset({"", "0.0.0.0/0", "::/0"})
_SETTINGS: Final = frozenset({"network", "policies", "ip_configurations", "routes", "mac_address", "flags"})


class _Place(NamedTuple):
    """What tells endpoints of a VM apart: their namespaces on the host, their networks, their names."""

    namespace: str
    network: str
    name: str


def wish_of(wanted: HostComputeEndpoint) -> NetworkWish:
    """Return the network that an endpoint is: the user's; the interface of its name in a namespace, whose path it has; a port of a bridge.

    Raises:
        NotFound: it is none of them.
        Unsupported: more is wanted of it than is carried out.
    """
    dns = tuple(wanted.dns.server_list or ()) if wanted.dns else ()
    if wanted.name == USER:
        _refuse(wanted, _SETTINGS, "its network has addresses and ways of its own")
        return UserNetwork(dns=dns)
    if wanted.namespace.startswith("/"):
        _refuse(wanted, _SETTINGS, "they are those of the interface")
        return NamespaceNetwork(namespace=wanted.namespace, interface=wanted.name, dns=dns)
    if wanted.network:
        _refuse(wanted, _SETTINGS - {"network", "ip_configurations", "routes"}, "a port of a bridge has none")
        addresses = tuple(f"{each.ip_address}/{each.prefix_length}" for each in wanted.ip_configurations or ())
        if ways := [each.destination_prefix for each in wanted.routes or () if each.destination_prefix not in _EVERYTHING]:
            raise Unsupported(f"endpoint {wanted.name}: routes to {', '.join(ways)}: a guest at a bridge has ways to everything only")
        gateways = tuple(each.next_hop for each in wanted.routes or ())
        return BridgeNetwork(bridge=wanted.network, addresses=addresses, gateways=gateways, dns=dns)
    hint = f"there is {USER}; an interface has the path of its namespace with it, a port of a bridge the bridge's name"
    raise NotFound(f"this host has no endpoint of the name {wanted.name!r}", hint=hint)


@final
class HostEndpoints:
    """The endpoints of one VM, to whose machine `offer` offers them: see `wish_of`."""

    def __init__(self, vm_id: VmId, offer: Callable[[str, Wire], None]) -> None:
        self._id, self._offer = vm_id, offer
        self._offered: set[str] = set()
        self._uplinks: dict[_Place, Uplink] = {}
        self._turn = asyncio.Lock()

    async def open(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Make an endpoint ready for an adapter; one that is ready stays as it is.

        Raises:
            NotFound: there is no endpoint of this name, or what it is on is not there.
            Unsupported: it is wanted otherwise than it can be, by somebody who may not, or on a host that lacks something.
            UtilityVMError: as `Uplink.open`.
        """
        wish, place = wish_of(wanted), _place(wanted)
        async with self._turn:
            uplink = self._uplinks.get(place)
            if uplink is None:
                uplink = uplink_of(self._id if isinstance(wish, UserNetwork) else VmId(" ".join(filter(None, (self._id, *place)))), wish)
                await uplink.open()
                self._uplinks[place] = uplink
            self._offer_once(uplink.endpoint.id, place)
            return _in_namespace(uplink.endpoint, wanted)

    async def find(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Return an endpoint that is ready. One that is asked for by its name alone is the only one of that name.

        Raises:
            NotFound: there is none.
        """
        asked = _place(wanted)
        found = [place for place in self._uplinks if place == asked]
        if not (asked.namespace or asked.network or found):
            found = [place for place in self._uplinks if place.name == asked.name]
        if len(found) != 1:
            raise NotFound(f"vm {self._id}: {'no' if not found else 'more than one'} endpoint {wanted.name} is on it")
        return _in_namespace(self._uplinks[found[0]].endpoint, wanted)

    async def close(self, endpoint: HNSEndpoint) -> None:
        """End an endpoint whose adapter is gone. A second call does nothing."""
        async with self._turn:
            for place, uplink in list(self._uplinks.items()):
                if uplink.endpoint.id == endpoint.id:
                    del self._uplinks[place]
                    await uplink.aclose()

    async def aclose(self) -> None:
        """End all of them. A second call does nothing."""
        for uplink in list(self._uplinks.values()):
            await self.close(uplink.endpoint)

    def _offer_once(self, endpoint_id: str, place: _Place) -> None:
        """Let adapters be on an endpoint, now and when it is opened again."""

        async def wire() -> NicEnd:
            if place not in self._uplinks:
                raise StateError(f"vm {self._id}: endpoint {place.name}", "not open", "give it to an adapter")
            return await self._uplinks[place].wire()

        if endpoint_id not in self._offered:
            self._offer(endpoint_id, wire)
            self._offered.add(endpoint_id)


def _place(wanted: HostComputeEndpoint) -> _Place:
    return _Place(wanted.namespace if wanted.namespace.startswith("/") else "", wanted.network, wanted.name)


def _refuse(wanted: HostComputeEndpoint, settings: frozenset[str], why: str) -> None:
    if asked := sorted(name for name in settings if getattr(wanted, name)):
        raise Unsupported(f"endpoint {wanted.name}: {', '.join(asked)}: {why}")


def _in_namespace(endpoint: HNSEndpoint, wanted: HostComputeEndpoint) -> HNSEndpoint:
    """Return an endpoint in the guest's namespace: a path is one of the host."""
    guests = NULL_GUID if wanted.namespace.startswith("/") or not wanted.namespace else wanted.namespace
    return structs.replace(endpoint, namespace=Namespace(id=guests))
