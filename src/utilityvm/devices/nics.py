"""How network adapters and network namespaces come into a VM and out of it: what host and guest are asked for."""

from collections.abc import Awaitable, Callable
from typing import Final, final

import msgspec
from msgspec import Raw

from utilityvm.devices import paths
from utilityvm.devices.holdings import Held
from utilityvm.devices.ports import Owner
from utilityvm.schema.devices import NetworkAdapter
from utilityvm.schema.guest_requests import (
    GuestRequest,
    LCOWAddress,
    LCOWNetworkAdapter,
    LCOWRoute,
    LCOWRoutedAdapter,
    NetworkModifyRequest,
    RS4NetworkModifyRequest,
)
from utilityvm.schema.hns import HNSEndpoint, Namespace, RoutedEndpoint
from utilityvm.schema.json import decode_answer
from utilityvm.schema.properties import Properties
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.schema.schema1 import GuestDefinedCapabilities

RS5: Final = 17763
"""Build of the first Windows whose guests call an adapter by `AdapterId`."""


async def knows_namespaces(properties: Callable[[], Awaitable[Properties]]) -> bool:
    """Return whether the guest's agent, of which a VM's `properties` tell, is told of namespaces and adapters."""
    info = (await properties()).guest_connection_info
    able = info.guest_defined_capabilities if info is not None else None
    return isinstance(able, Raw) and decode_answer(bytes(able), GuestDefinedCapabilities).namespace_add_request_supported


class Nic(msgspec.Struct, frozen=True):
    """A network adapter of a VM: `endpoint` of the host's networks, in the namespace `namespace_id`, for the guest `nic_id`."""

    nic_id: str
    namespace_id: str
    endpoint: HNSEndpoint
    state: str = Held.ATTACHED.value


@final
class NicEffects:
    """How adapters come and go. A Linux guest is told of them if its agent knows namespaces."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: Nic) -> None:
        """See `holdings.Effects.attach`. A Windows guest learns of the endpoint before its adapter comes."""
        if self._owner.windows:
            early = GuestRequest(request_type="Add", resource_type="Network", settings=self._windows(thing, "PreAdd", thing.endpoint))
            await self._owner.modify(ModifySettingRequest(guest_request=early))
            guest: GuestRequest | None = GuestRequest(request_type="Add", resource_type="Network", settings=self._windows(thing, "Add"))
        else:
            guest = await self._linux("Add", _adapter(thing))
        await self._owner.modify(_request(thing, "Add", guest))

    async def detach(self, thing: Nic, *, from_guest: bool) -> None:
        """See `holdings.Effects.detach`."""
        guest: GuestRequest | None = None
        if from_guest and self._owner.windows:
            settings = self._windows(thing, "Remove")
            guest = GuestRequest(request_type="Remove", resource_type="Network", settings=settings)
        elif from_guest:
            guest = await self._linux("Remove", LCOWNetworkAdapter(namespace_id=thing.namespace_id, id=thing.nic_id))
        await self._owner.modify(_request(thing, "Remove", guest))

    async def _linux(self, request_type: str, adapter: LCOWNetworkAdapter) -> GuestRequest | None:
        if not await self._owner.guest_knows_namespaces():
            return None
        return GuestRequest(request_type=request_type, resource_type="Network", settings=adapter)

    def _windows(self, nic: Nic, request_type: str, settings: HNSEndpoint | None = None) -> NetworkModifyRequest | RS4NetworkModifyRequest:
        if self._owner.host.build < RS5:
            return RS4NetworkModifyRequest(adapter_instance_id=nic.nic_id, request_type=request_type, settings=settings)
        return NetworkModifyRequest(adapter_id=nic.nic_id, request_type=request_type, settings=settings)


@final
class NamespaceEffects:
    """How namespaces come and go: a Windows guest that knows them is told, a Linux guest makes one with its first adapter."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    async def attach(self, thing: Namespace) -> None:
        """See `holdings.Effects.attach`."""
        await self._tell("Add", thing)

    async def detach(self, thing: Namespace, *, from_guest: bool) -> None:
        """See `holdings.Effects.detach`."""
        if from_guest:
            await self._tell("Remove", thing)

    async def _tell(self, request_type: str, namespace: Namespace) -> None:
        if self._owner.windows and await self._owner.guest_knows_namespaces():
            request = GuestRequest(request_type=request_type, resource_type="NetworkNamespace", settings=namespace)
            await self._owner.modify(ModifySettingRequest(guest_request=request))


def _request(nic: Nic, request_type: str, guest: GuestRequest | None) -> ModifySettingRequest:
    settings = NetworkAdapter(endpoint_id=nic.endpoint.id, mac_address=nic.endpoint.mac_address)
    path = paths.adapter(nic.nic_id)
    return ModifySettingRequest(resource_path=path, request_type=request_type, settings=settings, guest_request=guest)


def _adapter(nic: Nic) -> LCOWNetworkAdapter:
    """Return what a Linux guest is told: in the older shape, which every agent knows, as long as that can say it."""
    endpoint = nic.endpoint
    if endpoint.ipv6_address or isinstance(endpoint, RoutedEndpoint):
        return _newer(nic)
    return LCOWNetworkAdapter(
        namespace_id=nic.namespace_id,
        id=nic.nic_id,
        mac_address=endpoint.mac_address,
        ip_address=endpoint.ip_address,
        prefix_length=endpoint.prefix_length,
        gateway_address=endpoint.gateway_address,
        dns_suffix=endpoint.dns_suffix,
        dns_server_list=endpoint.dns_server_list,
        enable_low_metric=endpoint.enable_low_metric,
        encap_overhead=endpoint.encap_overhead,
    )


def _newer(nic: Nic) -> LCOWRoutedAdapter:
    """Return it in the newer shape. Ways of an adapter that is not the first are for what comes from its own addresses, as in the older."""
    endpoint = nic.endpoint
    addresses = [(endpoint.ip_address, endpoint.prefix_length), (endpoint.ipv6_address, endpoint.ipv6_prefix_length)]
    routes = [LCOWRoute(next_hop=hop) for hop in (endpoint.gateway_address, endpoint.gateway_address_v6) if hop]
    if isinstance(endpoint, RoutedEndpoint):
        addresses += [(one.ip_address, one.prefix_length) for one in endpoint.ip_configurations]
        ways = ((one.next_hop, one.destination_prefix, one.metric) for one in endpoint.routes)
        routes += [LCOWRoute(next_hop=hop, destination_prefix=to, metric=metric) for hop, to, metric in ways]
    return LCOWRoutedAdapter(
        namespace_id=nic.namespace_id,
        id=nic.nic_id,
        mac_address=endpoint.mac_address,
        ip_configs=[LCOWAddress(ip_address=address, prefix_length=length) for address, length in addresses if address],
        routes=routes,
        policy_based_routing=True,
        dns_suffix=endpoint.dns_suffix,
        dns_server_list=endpoint.dns_server_list,
        enable_low_metric=endpoint.enable_low_metric,
        encap_overhead=endpoint.encap_overhead,
    )
