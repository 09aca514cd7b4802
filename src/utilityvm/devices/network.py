"""Network namespaces of a VM and the adapters in them."""

from collections.abc import Iterable
from typing import final

from msgspec.structs import replace

from utilityvm.devices.holdings import Holding, Holdings
from utilityvm.devices.nics import NamespaceEffects, Nic, NicEffects
from utilityvm.devices.ports import Owner
from utilityvm.kit.errors import Exists, InvalidOptions, NotFound, UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.schema.hns import HNSEndpoint, Namespace


@final
class Network:
    """The namespaces of one VM, and the network adapters in each. Names of namespaces are compared without regard to case."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._namespaces = Holdings[Namespace](owner.id, "network namespace", NamespaceEffects(owner))
        self._nics = Holdings[Nic](owner.id, "network adapter", NicEffects(owner))

    @property
    def namespaces(self) -> tuple[Namespace, ...]:
        """All namespaces, also those that are on their way in or out."""
        return tuple(held.thing for held in self._namespaces)

    @property
    def adapters(self) -> tuple[Nic, ...]:
        """All adapters, also those that are on their way in or out, in the order of being asked for."""
        return tuple(_now(held) for held in self._nics)

    async def add_namespace(self, namespace: Namespace) -> None:
        """Let the VM have a namespace, without any adapter.

        Raises:
            InvalidOptions: it has no id.
            Exists: the VM has it.
            StateError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        if not namespace.id:
            raise InvalidOptions(f"{self._owner.name}: a network namespace without an id")

        def there(_: Namespace) -> None:
            raise Exists("network namespace already added", hint=f"{self._owner.name} has the namespace {namespace.id}")

        await self._namespaces.take(namespace.id.lower(), lambda: namespace, there)

    async def add_endpoint(self, namespace_id: str, endpoint: HNSEndpoint, nic_id: str = "") -> Nic:
        """Give the VM an adapter on `endpoint`, in a namespace that it has. The guest calls it `nic_id`, ``""``: one is drawn.

        An endpoint that is there already stays as it is. A call that is cancelled is carried out, and then taken back.

        Raises:
            NotFound: the VM has no such namespace; or the host no such endpoint.
            InvalidOptions: the endpoint has no id.
            StateError, Unsupported, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        namespace = await self._namespace(namespace_id)
        if not endpoint.id:
            raise InvalidOptions(f"{self._owner.name}: an endpoint without an id")
        key = _key(namespace.id, endpoint.id)
        held = await self._nics.take(key, lambda: Nic(nic_id or new_guid(), namespace.id, endpoint))
        held.references = 1  # it is there or not, however often it was asked for
        return _now(held)

    async def add_endpoints(self, namespace_id: str, endpoints: Iterable[HNSEndpoint]) -> tuple[Nic, ...]:
        """Add all of these, one after the other: their order is the guest's. When one fails those before it stay.

        Raises:
            UtilityVMError: as `add_endpoint`.
        """
        await self._namespace(namespace_id)
        return tuple([await self.add_endpoint(namespace_id, endpoint) for endpoint in endpoints])

    async def remove_endpoint(self, namespace_id: str, endpoint: HNSEndpoint) -> None:
        """Take the adapter on `endpoint` out of the VM. When that fails the same call may be made again.

        Raises:
            NotFound: the VM has no such namespace, or no adapter on this endpoint in it.
            StateError, HostError, GuestError, ConnectionLost, DeadlineExceeded: see `UtilityVM.modify`.
        """
        key = _key((await self._namespace(namespace_id)).id, endpoint.id)
        if await self._nics.settled(key) is None:
            raise NotFound("NIC not found in network namespace", hint=f"{self._owner.name}: endpoint {endpoint.id} in {namespace_id}")
        await self._nics.drop(key)

    async def remove_endpoints(self, namespace_id: str, endpoints: Iterable[HNSEndpoint]) -> None:
        """Take all of these out, as far as they are there.

        Raises:
            NotFound: the VM has no such namespace.
            UtilityVMError: some could not be removed; the error is the first one's, with the others as its notes.
        """
        namespace = await self._namespace(namespace_id)
        await self._drop([_key(namespace.id, endpoint.id) for endpoint in endpoints])

    async def remove_namespace(self, namespace_id: str) -> None:
        """Take a namespace with all its adapters out of the VM; one that it does not have is out already.

        When an adapter cannot be removed the namespace stays with those that are left, and the same call may be made again.

        Raises:
            UtilityVMError: as `remove_endpoints`.
        """
        held = await self._namespaces.settled(namespace_id.lower())
        if held is None:
            return
        while mine := [
            _key(nic.thing.namespace_id, nic.thing.endpoint.id) for nic in self._nics if nic.thing.namespace_id == held.thing.id
        ]:
            await self._drop(mine)
        if await self._namespaces.settled(namespace_id.lower()) is held:
            await self._namespaces.drop(namespace_id.lower())

    async def remove_all(self) -> None:
        """Take every adapter of every namespace out of the VM; the namespaces stay.

        Raises:
            UtilityVMError: as `remove_endpoints`.
        """
        await self._drop([_key(held.thing.namespace_id, held.thing.endpoint.id) for held in self._nics])

    async def _namespace(self, namespace_id: str) -> Namespace:
        held = await self._namespaces.settled(namespace_id.lower())
        if held is None:
            raise NotFound("network namespace not found", hint=f"{self._owner.name} has no namespace {namespace_id!r}: add it first")
        return held.thing

    async def _drop(self, keys: Iterable[str]) -> None:
        """Drop each, whatever becomes of the others."""
        failures: list[UtilityVMError] = []
        for key in keys:
            try:
                if await self._nics.settled(key) is not None:
                    await self._nics.drop(key)
            except UtilityVMError as error:
                failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(f"also: {other}")
            raise failures[0]


def _key(namespace_id: str, endpoint_id: str) -> str:
    return f"{namespace_id.lower()}/{endpoint_id}"


async def ensure_namespace(network: Network, namespace: Namespace) -> bool:
    """Let a VM have a namespace; return whether it was not there.

    Raises:
        UtilityVMError: as `Network.add_namespace`.
    """
    if any(known.id.lower() == namespace.id.lower() for known in network.namespaces):
        return False
    await network.add_namespace(namespace)
    return True


def _now(held: Holding[Nic]) -> Nic:
    return replace(held.thing, state=held.state.value)
