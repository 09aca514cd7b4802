"""Endpoints that a VM's agent finds by their names on a Linux host: what of `network` can be plugged into a VM that runs."""

import asyncio
from collections.abc import Callable
from typing import Final, final

from msgspec import structs

from utilityvm.compute.nic import NicEnd, Wire
from utilityvm.kit.errors import NotFound, StateError, Unsupported
from utilityvm.kit.ids import NULL_GUID, VmId
from utilityvm.network.user import UserUplink
from utilityvm.options.network import UserNetwork
from utilityvm.schema.hns import HNSEndpoint, Namespace
from utilityvm.wire.hcn import HostComputeEndpoint

USER: Final = "user"
"""The name of the endpoint whose network needs no rights."""

_NOT_CARRIED_OUT: Final = ("policies", "ip_configurations", "routes", "mac_address", "flags")


@final
class HostEndpoints:
    """The endpoints of one VM, to whose machine `offer` offers them. There is `USER`: passt, which reaches public addresses."""

    def __init__(self, vm_id: VmId, offer: Callable[[str, Wire], None]) -> None:
        self._id, self._offer = vm_id, offer
        self._offered = False
        self._uplink: UserUplink | None = None
        self._turn = asyncio.Lock()

    async def open(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Make an endpoint ready for an adapter; one that is ready stays as it is.

        Raises:
            NotFound: there is no endpoint of this name.
            Unsupported: it is wanted otherwise than it can be; or there is no passt.
            UtilityVMError: as `UserUplink.open`.
        """
        self._known(wanted)
        async with self._turn:
            if self._uplink is None:
                uplink = UserUplink(self._id, UserNetwork(dns=tuple(wanted.dns.server_list or ()) if wanted.dns else ()))
                await uplink.open()
                self._uplink = uplink
            if not self._offered:
                self._offer(self._uplink.endpoint.id, self._wire)
                self._offered = True
            return _in_namespace(self._uplink.endpoint, wanted)

    async def find(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Return an endpoint that is ready.

        Raises:
            NotFound: there is none of this name.
        """
        self._known(wanted)
        if self._uplink is None:
            raise NotFound(f"vm {self._id}: the endpoint {wanted.name} is not on it")
        return _in_namespace(self._uplink.endpoint, wanted)

    async def close(self, endpoint: HNSEndpoint) -> None:
        """End an endpoint whose adapter is gone. A second call does nothing."""
        async with self._turn:
            if self._uplink is not None and self._uplink.endpoint.id == endpoint.id:
                uplink, self._uplink = self._uplink, None
                await uplink.aclose()

    async def aclose(self) -> None:
        """End all of them. A second call does nothing."""
        if self._uplink is not None:
            await self.close(self._uplink.endpoint)

    async def _wire(self) -> NicEnd:
        if self._uplink is None:
            raise StateError(f"vm {self._id}: its user network", "not open", "give it to an adapter")
        return await self._uplink.wire()

    def _known(self, wanted: HostComputeEndpoint) -> None:
        if wanted.name != USER:
            raise NotFound(f"this host has no endpoint of the name {wanted.name!r}", hint=f"there is {USER}")
        if asked := [name for name in _NOT_CARRIED_OUT if getattr(wanted, name)]:
            raise Unsupported(f"endpoint {USER}: {', '.join(asked)}: its network has addresses and ways of its own")


def _in_namespace(endpoint: HNSEndpoint, wanted: HostComputeEndpoint) -> HNSEndpoint:
    return structs.replace(endpoint, namespace=Namespace(id=wanted.namespace or NULL_GUID))
