"""The host network service: endpoints by their names, and the namespaces that they are in."""

from typing import Final, TypeVar, final

from msgspec import Raw, structs

from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.workers import Workers
from utilityvm.kit.errors import HostError, NotFound
from utilityvm.schema.hns import HNSEndpoint, Namespace, NetworkAnswer
from utilityvm.schema.json import decode_answer
from utilityvm.wire.hcn import HostComputeEndpoint

T = TypeVar("T")

_NOT_FOUND: Final = "Element not found."


@final
class WindowsEndpoints:
    """The endpoints of a Windows host. Who made them ends them: nothing of them is a VM's."""

    def __init__(self, calls: Hcs, work: Workers) -> None:
        self._calls, self._work = calls, work

    async def open(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Return the endpoint of this name, with all that is known of its namespace, which a Windows guest is told.

        Raises:
            NotFound: there is none.
            HostError: the service refuses, or its answer cannot be read.
        """
        found = await self.find(wanted)
        if found.namespace is None:
            return found
        return structs.replace(found, namespace=await self._get(f"/namespaces/{found.namespace.id}", Namespace))

    async def find(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        """Return the endpoint of this name.

        Raises:
            NotFound, HostError: as `open`.
        """
        endpoints = await self._get("/endpoints/", list[HNSEndpoint])
        found = next((endpoint for endpoint in endpoints if endpoint.name == wanted.name), None)
        if found is None:
            raise NotFound(f"Endpoint {wanted.name} not found")
        return found

    async def close(self, endpoint: HNSEndpoint) -> None:
        """Do nothing: it is the host's."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def _get(self, path: str, kind: type[T]) -> T:
        text = await self._work.run(f"HNSCall GET {path}", lambda: self._calls.network("GET", path))
        told = decode_answer(text, NetworkAnswer)
        if not told.success:
            error = NotFound if _NOT_FOUND in told.error else HostError
            raise error(f"GET {path}: hns failed with error : {told.error}")
        return decode_answer(bytes(told.output) if isinstance(told.output, Raw) else b"null", kind)
