"""The service by which a proxy of the node's network gives adapters and devices to one VM: hcsshim's `ComputeAgent`."""

from contextlib import suppress
from json import dumps
from typing import Final, Protocol, final

from utilityvm.devices.network import ensure_namespace
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import InvalidOptions, NotFound, StateError, UtilityVMError
from utilityvm.schema.devices import IovSettings, NetworkAdapter
from utilityvm.schema.hns import HNSEndpoint, Namespace
from utilityvm.ttrpc.server import Service, Unary
from utilityvm.vm.link import Adapters
from utilityvm.wire import ncproxy
from utilityvm.wire.hcn import HostComputeEndpoint
from utilityvm.wire.ncproxy import endpoint_of
from utilityvm.wire.ttrpc import Metadata

_CLEANUP: Final = 5.0
_MODERATIONS: Final = {0: "Default", 1: "Adaptive", 2: "Off", 100: "Low", 200: "Medium", 300: "High"}
"""How often a network card interrupts, by its number."""


class Endpoints(Protocol):
    """Endpoints of the host's networks, by their names."""

    async def open(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Make one ready for an adapter; one that is ready stays as it is.

        Raises:
            NotFound: there is none of this name.
            UtilityVMError: it cannot be made ready.
        """
        ...

    async def find(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Return one that is ready.

        Raises:
            NotFound: there is none of this name.
        """
        ...

    async def close(self, endpoint: HNSEndpoint) -> None:
        """End one whose adapter is gone. A second call does nothing."""
        ...

    async def aclose(self) -> None:
        """End all of them. A second call does nothing."""
        ...


@final
class ComputeAgent:
    """The service of one VM."""

    def __init__(self, vm: Adapters, endpoints: Endpoints) -> None:
        self._vm, self._endpoints = vm, endpoints
        self.methods: Final[Service] = {
            "AddNIC": Unary(ncproxy.AddNIC, self._add_nic),
            "ModifyNIC": Unary(ncproxy.ModifyNIC, self._modify_nic),
            "DeleteNIC": Unary(ncproxy.DeleteNIC, self._delete_nic),
            "AssignPCI": Unary(ncproxy.AssignPCI, self._assign_pci),
            "RemovePCI": Unary(ncproxy.RemovePCI, self._remove_pci),
        }

    async def _add_nic(self, request: ncproxy.AddNIC, _: Metadata) -> ncproxy.Nothing:
        _need(request.nic_id, request.endpoint)
        wanted = endpoint_of(request.endpoint)
        try:
            endpoint = await self._endpoints.open(wanted)
        except UtilityVMError as error:
            error.during(_not_got(wanted))
            raise
        try:
            namespace = _namespace(endpoint, wanted)
            await ensure_namespace(self._vm.network, namespace)
            await self._vm.network.add_endpoint(namespace.id, endpoint, request.nic_id)
        except BaseException:
            with suppress(UtilityVMError, TimeoutError):  # why there is no adapter says more
                await finish(self._endpoints.close(endpoint), within=_CLEANUP)
            raise
        return ncproxy.Nothing()

    async def _modify_nic(self, request: ncproxy.ModifyNIC, _: Metadata) -> ncproxy.Nothing:
        _need(request.nic_id, request.endpoint, request.iov_policy_settings)
        endpoint, asked = await self._found(endpoint_of(request.endpoint)), request.iov_policy_settings or ncproxy.IovPolicy()
        settings = IovSettings(
            offload_weight=asked.offload_weight,
            queue_pairs_requested=asked.queue_pairs_requested,
            interrupt_moderation=_MODERATIONS.get(asked.interrupt_moderation, ""),
        )
        adapter = NetworkAdapter(endpoint_id=endpoint.id, mac_address=endpoint.mac_address, iov_settings=settings)
        try:
            await self._vm.update_nic(request.nic_id, adapter)
        except UtilityVMError as error:
            error.during("failed to update UVM's network adapter")
            raise
        return ncproxy.Nothing()

    async def _delete_nic(self, request: ncproxy.DeleteNIC, _: Metadata) -> ncproxy.Nothing:
        _need(request.nic_id, request.endpoint)
        wanted = endpoint_of(request.endpoint)
        endpoint = await self._found(wanted)
        await self._vm.network.remove_endpoint(_namespace(endpoint, wanted).id, endpoint)
        await self._endpoints.close(endpoint)
        return ncproxy.Nothing()

    async def _assign_pci(self, request: ncproxy.AssignPCI, _: Metadata) -> ncproxy.Assigned:
        _need(request.device_id)
        device = await self._vm.vpci.assign(request.device_id, request.virtual_function_index, request.nic_id)
        return ncproxy.Assigned(id=device.vmbus_guid)

    async def _remove_pci(self, request: ncproxy.RemovePCI, _: Metadata) -> ncproxy.Nothing:
        _need(request.device_id)
        await self._vm.vpci.remove(request.device_id, request.virtual_function_index)
        return ncproxy.Nothing()

    async def _found(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        try:
            return await self._endpoints.find(wanted)
        except NotFound as error:
            error.during(_not_got(wanted))
            raise


def _need(*fields: object) -> None:
    if not all(fields):
        raise InvalidOptions("received empty field in request")


def _not_got(wanted: HostComputeEndpoint) -> str:
    return f"failed to get endpoint with name {dumps(wanted.name)}"


def _namespace(endpoint: HNSEndpoint, wanted: HostComputeEndpoint) -> Namespace:
    if endpoint.namespace is None:
        raise StateError(f"endpoint {wanted.name}", "in no network namespace", "become an adapter")
    return endpoint.namespace
