"""More networks of a running VM than its own: each an adapter in a network namespace of its guest."""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, final

from utilityvm.compute.nic import NicEnd, Wire
from utilityvm.devices.network import Network, ensure_namespace
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import Exists, NotFound, StateError, UtilityVMError
from utilityvm.kit.ids import NULL_GUID, VmId
from utilityvm.network.uplink import TapUplink, Uplink, UserUplink, uplink_of
from utilityvm.options.network import NetworkWish
from utilityvm.schema.hns import HNSEndpoint, Namespace, RoutedEndpoint

CLEANUP: Final = 15.0
"""Seconds that ending a network may take whose adapter could not be added."""


@final
class Uplinks:
    """Those of one VM. They end with it."""

    def __init__(self, vm_id: VmId, network: Network, offer: Callable[[str, Wire], None], check: Callable[[], None]) -> None:
        self._id, self._network, self._offer, self._check = vm_id, network, offer, check
        self._there: dict[int, tuple[Uplink, str]] = {}
        self._offered, self._coming = set[str](), list[tuple[str, set[str]]]()

    @property
    def there(self) -> tuple[UserUplink | TapUplink, ...]:
        """All that were added and not removed, in the order of their numbers: those that became free are given again."""
        return tuple(uplink for _, (uplink, _) in sorted(self._there.items()))

    async def add(self, wish: NetworkWish, namespace_id: str = NULL_GUID) -> UserUplink | TapUplink:
        """Give the running VM one more network, by an adapter in the guest's network namespace `namespace_id`, which is made if it is not
        there; by default in the VM's own. Return it: what is published, and what the guest may reach.

        A container is in such a namespace when its specification names it (``windows.network.networkNamespace``). A call that fails or is
        cancelled leaves nothing.

        Raises:
            InvalidOptions: the wish makes no sense.
            StateError: the VM does not run.
            Exists: an adapter of the namespace has the same address; or as `open` of the network.
            Unsupported, NotFound, HostError, DeadlineExceeded: the network cannot be made.
            Exhausted: the VM has no place for one more adapter.
            GuestError, ConnectionLost: the guest does not take it.
        """
        self._check()
        number = next(number for number in range(1, len(self._there) + 2) if number not in self._there)
        uplink = uplink_of(VmId(f"{self._id} {number}"), wish)
        self._there[number] = uplink, namespace_id
        try:
            await uplink.open()
            self._refuse_twice(uplink.endpoint, namespace_id)
            try:
                self._offer_once(uplink.endpoint.id, number)
                await self._plug(uplink.endpoint, namespace_id)
            finally:
                self._coming.remove((namespace_id, _addresses(uplink.endpoint)))
        except BaseException:
            del self._there[number]
            with suppress(UtilityVMError):
                await finish(uplink.aclose(), within=CLEANUP)
            raise
        return uplink

    async def remove(self, uplink: UserUplink | TapUplink) -> None:
        """Take a network out of the VM, and end it. When that fails the same call may be made again.

        Raises:
            NotFound: it is none of these.
            StateError, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        number = next((number for number, (known, _) in self._there.items() if known is uplink), None)
        if number is None:
            raise NotFound(f"vm {self._id}: this network was not added to it, or was removed")
        with suppress(NotFound):  # its adapter was removed before
            await self._network.remove_endpoint(self._there[number][1], uplink.endpoint)
        await uplink.aclose()
        del self._there[number]

    async def aclose(self) -> None:
        """End all of them; the VM is over. A second call does nothing."""
        for number, (uplink, _) in list(self._there.items()):
            await uplink.aclose()
            del self._there[number]

    async def _plug(self, endpoint: HNSEndpoint, namespace_id: str) -> None:
        made = await ensure_namespace(self._network, Namespace(id=namespace_id))
        try:
            await self._network.add_endpoint(namespace_id, endpoint)
        except BaseException:
            if made:
                with suppress(UtilityVMError):  # why it failed says more
                    await finish(self._network.remove_namespace(namespace_id), within=CLEANUP)
            raise

    def _refuse_twice(self, endpoint: HNSEndpoint, namespace_id: str) -> None:
        mine, there = _addresses(endpoint), [(nic.namespace_id, _addresses(nic.endpoint)) for nic in self._network.adapters]
        for where, addresses in [*there, *self._coming]:
            if where.lower() == namespace_id.lower() and (same := mine & addresses):
                raise Exists(
                    f"vm {self._id}: an adapter of the network namespace {namespace_id} has the address {min(same)}",
                    hint="put one of the two into a namespace of its own",
                )
        self._coming.append((namespace_id, mine))

    def _offer_once(self, endpoint_id: str, number: int) -> None:
        """Let an adapter be on the endpoint of this number, now and when the number is given again."""

        async def wire() -> NicEnd:
            if number not in self._there:
                raise StateError(f"vm {self._id}: network {endpoint_id}", "not open", "give it to an adapter")
            return await self._there[number][0].wire()

        if endpoint_id not in self._offered:
            self._offer(endpoint_id, wire)
            self._offered.add(endpoint_id)


def _addresses(endpoint: HNSEndpoint) -> set[str]:
    more = [one.ip_address for one in endpoint.ip_configurations] if isinstance(endpoint, RoutedEndpoint) else []
    return {address for address in (endpoint.ip_address, endpoint.ipv6_address, *more) if address}
