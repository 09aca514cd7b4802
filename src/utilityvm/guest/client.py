"""The guest agent as seen by the host: each method is one message of the protocol.

protocol/SPEC.md sections 5 and 6.
"""

from collections.abc import Sequence
from typing import final

import msgspec

from utilityvm.guest.bridge import Bridge
from utilityvm.kit.errors import GuestError, ProtocolError
from utilityvm.schema.properties import Properties
from utilityvm.wire import gcs


def read_properties(response: gcs.PropertiesResponse, container_id: str) -> Properties:
    """Return what a container tells of itself.

    Raises:
        ProtocolError: it is not what the protocol says.
    """
    try:
        return msgspec.json.decode(response.properties or "{}", type=Properties)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolError(f"properties of {container_id}: {error}") from error


@final
class GuestClient:
    """Calls to the agent of one utility VM, after `negotiate`."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.capabilities = gcs.Capabilities()

    @property
    def bridge(self) -> Bridge:
        """The connection that carries the calls."""
        return self._bridge

    async def negotiate(self) -> gcs.BootTimes | None:
        """Agree on the protocol's version; must be the first call. Returns what the guest tells of its boot.

        Raises:
            ProtocolError: the guest chose a version that was not offered.
            GuestError: the guest speaks none of ours.
        """
        response = await self._bridge.call(gcs.NEGOTIATE, gcs.NegotiateRequest(container_id=""))
        if response.version != gcs.PROTOCOL_VERSION:
            raise ProtocolError(f"unexpected version {response.version} returned")
        self.capabilities = response.capabilities
        return response.boot_times

    async def execute_process(self, parameters: gcs.ProcessParameters, ports: gcs.StdioPorts) -> int:
        """Start a process in the utility VM and return its id. If the caller gives up meanwhile, the process is killed.

        Raises:
            GuestError: it could not be started; `result` tells `gcs.FILE_NOT_FOUND` and `gcs.ACCESS_DENIED` apart.
        """
        settings = gcs.ExecuteSettings(process_parameters=gcs.encode_parameters(parameters), stdio_ports=ports)

        async def undo(started: gcs.ExecuteResponse) -> None:
            await self.kill_stray(started.process_id)

        response = await self._bridge.call(gcs.EXECUTE, gcs.ExecuteRequest(settings=settings), undo=undo)
        return response.process_id

    async def wait_process(self, process_id: int) -> int:
        """Wait until the process has ended and return its exit code (128 + signal when it was killed)."""
        response = await self._bridge.call(gcs.WAIT, gcs.WaitRequest(process_id=process_id), within=None)
        return response.exit_code

    async def signal_process(self, process_id: int, signal: int) -> bool:
        """Send `signal`; say whether it was delivered, which it is not when the process has ended."""
        request = gcs.SignalRequest(process_id=process_id, options=gcs.SignalOptions(signal=signal))
        try:
            await self._bridge.call(gcs.SIGNAL, request)
        except GuestError as error:
            if error.result == gcs.NOT_FOUND:
                return False
            raise
        return True

    async def resize_console(self, process_id: int, *, height: int, width: int) -> None:
        """Set the size of the process's terminal, in characters; nothing happens when the process has ended."""
        try:
            await self._bridge.call(gcs.RESIZE, gcs.ResizeRequest(process_id=process_id, height=height, width=width))
        except GuestError as error:
            if error.result != gcs.NOT_FOUND:  # which it is as soon as its exit code was told
                raise

    async def properties(self, container_id: str, types: Sequence[str]) -> Properties:
        """Ask a container, or with `ids.NULL_GUID` the utility VM, what it tells of itself under `types`, e.g. `PropertyType.MEMORY`.

        A type that the guest does not know is left out of the answer.

        Raises:
            GuestError: the guest does not tell.
            ProtocolError: what it tells is not what the protocol says.
        """
        request = gcs.PropertiesRequest(container_id=container_id, query=gcs.encode_query(types))
        response = await self._bridge.call(gcs.PROPERTIES, request)
        return read_properties(response, container_id)

    async def dump_stacks(self) -> str:
        """Return what the threads of the guest's agent are doing, as text for people; what is too long for an answer is cut off.

        Raises:
            GuestError: the agent cannot tell; `capabilities` say it beforehand.
        """
        return (await self._bridge.call(gcs.DUMP_STACKS, gcs.Request())).guest_stacks

    async def kill_stray(self, process_id: int) -> None:
        """End a process that nobody owns and let the guest forget it."""
        await self.signal_process(process_id, 0)
        await self.wait_process(process_id)
