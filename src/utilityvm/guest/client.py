"""The guest agent as seen by the host: each method is one message of the protocol.

protocol/SPEC.md sections 5 and 6. What a guest is too old for is sent all the same, as the original does, and the guest refuses it;
`capabilities` tell beforehand.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, final

from msgspec import UNSET, UnsetType

from utilityvm.guest.bridge import Bridge
from utilityvm.kit.errors import DeadlineExceeded, GuestError, ProtocolError, Unsupported
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.trace import current
from utilityvm.schema.properties import Properties
from utilityvm.wire import gcs
from utilityvm.wire.detached import (
    CONTAINER_STATE,
    DETACHED_PROCESSES,
    ContainerPlace,
    ContainerPlaces,
    DetachedProcess,
    DetachedProcesses,
)

SHUTDOWN_TIMEOUT: Final = 30.0
"""Seconds that the guest has to say that it ends a container; the bridge goes on when they have passed."""


def read_properties(response: gcs.PropertiesResponse, container_id: str) -> Properties:
    """Return what a container tells of itself.

    Raises:
        ProtocolError: it is not what the protocol says.
    """
    return gcs.decode_text(response.properties or "{}", Properties, f"properties of {container_id}")


def _span() -> gcs.SpanContext | UnsetType:
    here = current()
    if here is None:
        return UNSET
    return gcs.SpanContext(trace_id=f"{here.trace_id:032x}", span_id=f"{here.span_id:016x}", trace_options=int(here.sampled))


def _about(container_id: str) -> gcs.Request:
    return gcs.Request(container_id=container_id, ocsc=_span())


@final
class GuestClient:
    """Calls to the agent of one utility VM, after `connect`.

    Requests belong to the caller's span where spans are exported. `inside` gives the same calls about a container's processes.
    """

    def __init__(self, bridge: Bridge, *, container_id: str = NULL_GUID) -> None:
        self._bridge, self._container_id = bridge, container_id
        self.capabilities = gcs.Capabilities()

    @property
    def bridge(self) -> Bridge:
        """The connection that carries the calls."""
        return self._bridge

    @property
    def os(self) -> str:
        """The guest's system: ``linux`` or ``windows``."""
        return self.capabilities.runtime_os_type.lower() or "windows"

    def inside(self, container_id: str) -> "GuestClient":
        """Return a client for the processes of a container."""
        client = GuestClient(self._bridge, container_id=container_id)
        client.capabilities = self.capabilities
        return client

    async def connect(self, *, cold_start: bool = True) -> gcs.BootTimes | None:
        """Agree on the protocol's version, and tell the guest of its host if it wants to hear of it; must be the first call.

        Returns what the guest tells of its boot. `cold_start` is False for a guest that was told before: a clone, or one that is
        connected again.

        Raises:
            ProtocolError: the guest chose a version that was not offered.
            GuestError: the guest speaks none of ours, or refuses its host.
        """
        response = await self._bridge.call(gcs.NEGOTIATE, gcs.NegotiateRequest(container_id=""))
        if response.version != gcs.PROTOCOL_VERSION:
            raise ProtocolError(f"unexpected version {response.version} returned")
        self.capabilities = response.capabilities
        if cold_start and self.capabilities.send_host_create_message:
            await self._bridge.call(gcs.CREATE_SYSTEM, gcs.CreateRequest(ocsc=_span(), container_config=gcs.SYSTEM_CONFIG))
            if self.capabilities.send_host_start_message:
                await self._bridge.call(gcs.START_SYSTEM, gcs.Request(ocsc=_span()))
        return response.boot_times

    # -- processes --------------------------------------------------------------------------------------------------

    async def execute_process(self, parameters: gcs.ProcessParameters, ports: gcs.StdioPorts) -> int:
        """Start a process and return its id. If the caller gives up meanwhile, the process is killed.

        Raises:
            GuestError: it could not be started; `result` tells why, as `gcs.FILE_NOT_FOUND` or `gcs.ACCESS_DENIED`.
        """

        async def undo(started: gcs.ExecuteResponse) -> None:
            await self.kill_stray(started.process_id)

        settings = gcs.execute_settings(parameters, ports, windows=self.os == "windows")
        request = gcs.ExecuteRequest(container_id=self._container_id, ocsc=_span(), settings=settings)
        return (await self._bridge.call(gcs.EXECUTE, request, undo=undo)).process_id

    async def attach_process(self, process_id: int, ports: gcs.StdioPorts) -> gcs.ProcessState:
        """Let the guest dial `ports` for the streams of a process that another host has started; those without a port are given up.

        A caller that gives up waits for the answer first.

        Raises:
            Unsupported: the guest's agent cannot; nothing was sent.
            GuestError: there is no such process, or this host has it (`result`).
        """
        if not self.capabilities.guest_defined.attach_process_supported:
            raise Unsupported("the guest's agent cannot attach processes (AttachProcessSupported)")
        request = gcs.AttachRequest(container_id=self._container_id, ocsc=_span(), process_id=process_id, stdio_ports=ports)
        return (await self._bridge.call(gcs.ATTACH, request)).process_state

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """See `Bridge.run`."""
        return self._bridge.run(name, work)

    async def wait_process(self, process_id: int) -> int:
        """Wait until the process has ended and return its exit code (128 + signal when it was killed)."""
        request = gcs.WaitRequest(container_id=self._container_id, ocsc=_span(), process_id=process_id)
        return (await self._bridge.call(gcs.WAIT, request, within=None)).exit_code

    async def signal_process(self, process_id: int, signal: int | gcs.SignalOptions) -> bool:
        """Send `signal`, 0 for the strongest; say whether it was delivered, which it is not when the process has ended.

        Guests of Windows know signals by name: for them `signal` is `SignalOptions`.
        """
        options: gcs.SignalOptions | UnsetType = UNSET
        if signal:
            options = signal if isinstance(signal, gcs.SignalOptions) else gcs.SignalOptions(signal=signal)
        request = gcs.SignalRequest(container_id=self._container_id, ocsc=_span(), process_id=process_id, options=options)
        try:
            await self._bridge.call(gcs.SIGNAL, request)
        except GuestError as error:
            if error.result == gcs.NOT_FOUND:
                return False
            raise
        return True

    async def resize_console(self, process_id: int, *, height: int, width: int) -> None:
        """Set the size of the process's terminal, in characters; nothing happens when the process has ended."""
        request = gcs.ResizeRequest(container_id=self._container_id, ocsc=_span(), process_id=process_id, height=height, width=width)
        try:
            await self._bridge.call(gcs.RESIZE, request)
        except GuestError as error:
            if error.result != gcs.NOT_FOUND:  # which it is as soon as its exit code was told
                raise

    async def kill_stray(self, process_id: int) -> None:
        """End a process that nobody owns, with its children where the guest can, and let the guest forget it."""
        await self.signal_process(process_id, 0 if self.os == "windows" else gcs.SignalOptions(group=True))
        await self.wait_process(process_id)

    # -- containers -------------------------------------------------------------------------------------------------

    async def create_container(self, container_id: str, config: object) -> "asyncio.Future[gcs.ContainerNotification]":
        """Create a container; return what will hold the notification of its end, or the reason why there is none.

        `config` is a struct or plain builtins, in the guest's own shape. If the caller gives up meanwhile, the container is ended and
        deleted.

        Raises:
            Exists: this connection has such a container.
            GuestError: it could not be created; the id is free again.
        """

        async def undo(_: gcs.Response) -> None:
            for end in (self.terminate_container, self.delete_container_state):
                with suppress(GuestError, DeadlineExceeded):  # it is ended as far as the guest can
                    await end(container_id)

        request = gcs.CreateRequest(container_id=container_id, ocsc=_span(), container_config=gcs.encode_json(config))
        exit_ = self._bridge.expect_exit(container_id)
        await self._bridge.call(gcs.CREATE, request, undo=undo, gone=lambda: self._bridge.forget_exit(container_id, exit_))
        return exit_

    async def start_container(self, container_id: str) -> None:
        """Start a container that was created. On Linux its first process starts with the first ExecuteProcess."""
        await self._bridge.call(gcs.START, _about(container_id))

    async def shutdown_container(self, container_id: str) -> None:
        """Ask a container to end, and do not wait for it. One that is not there is no error.

        Raises:
            DeadlineExceeded: no answer within `SHUTDOWN_TIMEOUT`.
            GuestError: the guest cannot.
        """
        await self._shut(gcs.SHUTDOWN_GRACEFUL, container_id)

    async def terminate_container(self, container_id: str) -> None:
        """Make a container end, and do not wait for it. See `shutdown_container`."""
        await self._shut(gcs.SHUTDOWN_FORCED, container_id)

    async def delete_container_state(self, container_id: str) -> None:
        """Let the guest forget a container that has ended. Its layers and disks may be removed after that, and not before."""
        await self._bridge.call(gcs.DELETE_STATE, _about(container_id))

    async def update_container(self, container_id: str, resources: object) -> None:
        """Change a container's limits by the message that only guests with `update_container_supported` know."""
        request = gcs.UpdateRequest(container_id=container_id, ocsc=_span(), resources=gcs.encode_json(resources))
        await self._bridge.call(gcs.UPDATE, request)

    # -- the utility VM, and both -----------------------------------------------------------------------------------

    async def modify(self, settings: object, container_id: str = NULL_GUID) -> None:
        """Change a resource of the utility VM or of a container: `settings` are a `gcs.GuestRequest`, or another struct or builtins.

        A caller that gives up waits for the answer first, so that it can undo what was done.
        """
        await self._bridge.call(gcs.MODIFY, gcs.ModifyRequest(container_id=container_id, ocsc=_span(), request=settings))

    async def set_clock(self, settings: object) -> None:
        """Tell the utility VM the time: `settings` are a `gcs.GuestRequest` that does. Who gives up does not wait for the answer.

        Raises:
            GuestError: the guest does not take it.
        """
        await self._bridge.call(gcs.SET_CLOCK, gcs.ModifyRequest(container_id=NULL_GUID, ocsc=_span(), request=settings))

    async def properties(self, container_id: str, types: Sequence[str]) -> Properties:
        """Ask a container, or with `ids.NULL_GUID` the utility VM, what it tells of itself under `types`, e.g. `PropertyType.MEMORY`.

        A type that the guest does not know is left out of the answer.

        Raises:
            GuestError: the guest does not tell.
            ProtocolError: what it tells is not what the protocol says.
        """
        return read_properties(await self._properties(container_id, types), container_id)

    async def detached_processes(self) -> list[DetachedProcess]:
        """Ask which processes can be attached, also those of containers.

        Raises:
            ProtocolError: what the guest tells is not what the protocol says.
        """
        response = await self._properties(NULL_GUID, [DETACHED_PROCESSES])
        return gcs.decode_text(response.properties or "{}", DetachedProcesses, DETACHED_PROCESSES).detached_processes

    async def container_state(self, container_id: str) -> ContainerPlace:
        """Ask where a container is in its life that this host has not made.

        Raises:
            Unsupported: the guest's agent cannot tell; nothing was sent.
            GuestError: there is no such container, or it is on its way from one place to another (`result`).
            ProtocolError: what the guest tells is not what the protocol says.
        """
        if not self.capabilities.guest_defined.attach_process_supported:
            raise Unsupported("the guest's agent cannot tell where a container is in its life (AttachProcessSupported)")
        response = await self._properties(container_id, [CONTAINER_STATE])
        return gcs.decode_text(response.properties or "{}", ContainerPlaces, f"{CONTAINER_STATE} of {container_id}").container_state

    async def _properties(self, container_id: str, types: Sequence[str]) -> gcs.PropertiesResponse:
        request = gcs.PropertiesRequest(container_id=container_id, ocsc=_span(), query=gcs.encode_query(types))
        return await self._bridge.call(gcs.PROPERTIES, request)

    async def dump_stacks(self) -> str:
        """Return what the threads of the guest's agent are doing, as text for people; what is too long for an answer is cut off.

        Raises:
            GuestError: the agent cannot tell; `capabilities` say it beforehand.
        """
        return (await self._bridge.call(gcs.DUMP_STACKS, _about(NULL_GUID))).guest_stacks

    async def _shut(self, call: gcs.Call[gcs.Request, gcs.Response], container_id: str) -> None:
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT):
                await self._bridge.call(call, _about(container_id))
        except TimeoutError:
            raise DeadlineExceeded(f"container {container_id}: no answer to {call.name} within {SHUTDOWN_TIMEOUT:g} s") from None
        except GuestError as error:
            if error.result != gcs.SYSTEM_NOT_FOUND:
                raise
