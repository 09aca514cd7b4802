"""The vectors of the guest connection: our bridge and client against the vector's guest, step by step."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from tests.parity.gcs_guest import Script, ScriptedGuest, Seen
from utilityvm.guest.bridge import Bridge
from utilityvm.guest.client import GuestClient
from utilityvm.guest.container import GuestContainer
from utilityvm.guest.process import Process, Stdio, launch
from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.trace import Span, TraceContext, listen, span
from utilityvm.wire import gcs
from utilityvm.wire.oci import OciProcess

TRACE, SPAN = 0x000102030405060708090A0B0C0D0E0F, 0xA001020304050607
SAMPLED = {"always": True, "never": False}
ZERO: dict[str, object] = {"DumpStacks": "", "Signal": False, "Kill": False, "ExitCode": -1}
"""What the original returns beside an error, where that is not nil."""

Json = dict[str, Any]


class FrameVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frame; `payload` keeps the very bytes."""

    dir: str
    type: int
    type_name: str
    id: int
    size: int
    payload: msgspec.Raw

    def seen(self) -> Seen:
        return Seen(self.dir, self.type, self.id, self.size, bytes(self.payload).decode())


class StepVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call on the host's side and what came of it."""

    call: str
    args: Json
    frames: list[FrameVector]
    result: Any
    error: str | None
    listened_ports: list[int] = []


class GcsVector(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guest and what was done with it."""

    name: str
    guest: Script
    span_sampler: str
    steps: list[StepVector]


@dataclass(frozen=True)
class Outcome:
    """What one step did."""

    result: object
    error: str | None
    frames: list[Seen] = field(default_factory=list)
    listened: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """Of the host service, each as one line."""


def expected(vector: GcsVector) -> list[Outcome]:
    """Return what the original did."""
    return [Outcome(step.result, step.error, [frame.seen() for frame in step.frames], step.listened_ports) for step in vector.steps]


def run(vector: GcsVector) -> list[Outcome]:
    """Return what we do, inside a span with the name of the vectors."""
    with exporting(sampled=SAMPLED[vector.span_sampler]):
        return asyncio.run(_Player(vector).play())


@contextmanager
def exporting(*, sampled: bool) -> Iterator[None]:
    """Run the body inside a span that is exported with the name of the vectors."""
    stop = listen(_Exporter(TraceContext(TRACE, SPAN, sampled)))
    try:
        with span("parity"):
            yield
    finally:
        stop()


@dataclass
class _Exporter:
    """Gives every span one name."""

    context: TraceContext

    def began(self, span: Span) -> None:
        span.context = self.context

    def ended(self, span: Span) -> None:
        """It is nowhere exported to."""


class _Player:
    def __init__(self, vector: GcsVector) -> None:
        self._vector = vector
        self._guest = ScriptedGuest(vector.guest)
        self._containers: dict[str, GuestContainer] = {}
        self._processes: list[tuple[GuestClient, Process]] = []

    async def play(self) -> list[Outcome]:
        self._bridge = Bridge(self._guest, "vm t")
        self._client = GuestClient(self._bridge)
        self._stdio = Stdio(self._guest)
        outcomes = [await self._step(step) for step in self._vector.steps]
        for _, process in self._processes:
            await process.close()
        await self._bridge.aclose()
        return outcomes

    async def _step(self, step: StepVector) -> Outcome:
        frames, ports = len(self._guest.frames), len(self._guest.listened)
        result: object = None
        error = None
        try:
            result = await CALLS[step.call](self, step.args)
        except UtilityVMError as failure:
            result, error = ZERO.get(step.call), failure.message
        await self._guest.settle()
        return Outcome(result, error, self._guest.frames[frames:], self._guest.listened[ports:])

    async def connect(self, args: Json) -> object:
        await self._client.connect(cold_start=args["cold_start"])
        capabilities = msgspec.to_builtins(self._client.capabilities.guest_defined)
        return {"capabilities": capabilities, "is_oci": False, "os": self._client.os, "protocol": gcs.PROTOCOL_VERSION}

    # -- containers -------------------------------------------------------------------------------------------------

    async def create(self, args: Json) -> object:
        container = await GuestContainer.create(self._client, self._stdio, args["id"], args["config"], "vm t")
        self._containers[args["id"]] = container
        return {"is_oci": container.is_oci, "os": container.os}

    async def clone(self, args: Json) -> None:
        self._containers[args["id"]] = GuestContainer.adopt(self._client, self._stdio, args["id"], "vm t")

    async def start(self, args: Json) -> None:
        await self._containers[args["container"]].start()

    async def shutdown(self, args: Json) -> None:
        await self._containers[args["container"]].shutdown()

    async def terminate(self, args: Json) -> None:
        await self._containers[args["container"]].terminate()

    async def properties(self, args: Json) -> object:
        return msgspec.to_builtins(await self._containers[args["container"]].properties(args["types"])) or None

    async def modify_container(self, args: Json) -> None:
        await self._containers[args["container"]].modify(_settings(args))

    async def notify_and_wait(self, args: Json) -> None:
        self._guest.notify(args["notification"])
        await self._containers[args["container"]].wait()

    # -- the utility VM ---------------------------------------------------------------------------------------------

    async def modify(self, args: Json) -> None:
        await self._client.modify(_settings(args))

    async def update(self, args: Json) -> None:
        await self._client.update_container(args["container"], args["resources"])

    async def delete(self, args: Json) -> None:
        await self._client.delete_container_state(args["container"])

    async def dump_stacks(self, _: Json) -> object:
        return await self._client.dump_stacks()

    # -- processes --------------------------------------------------------------------------------------------------

    async def create_process(self, args: Json) -> object:
        parameters = msgspec.convert(args["params"], gcs.ProcessParameters)
        if args["container"]:
            return self._started(args, await self._containers[args["container"]].launch(parameters))
        return self._started(args, await launch(self._client, self._stdio, parameters, "vm t"))

    async def command(self, args: Json) -> object:
        process = msgspec.convert(args["spec"], OciProcess)
        streams = {name: args[name] for name in ("stdin", "stdout", "stderr")}
        if args["container"]:
            return self._started(args, await self._containers[args["container"]].execute(process, **streams))
        parameters = gcs.parameters_of(process, windows=self._client.os == "windows", whole=False, **streams)
        return self._started(args, await launch(self._client, self._stdio, parameters, "vm t"))

    def _started(self, args: Json, process: Process) -> object:
        client = self._client.inside(args["container"]) if args["container"] else self._client
        self._processes.append((client, process))
        return {"pid": process.pid, "process": str(len(self._processes) - 1)}

    def _process(self, args: Json) -> Process:
        return self._processes[int(args["process"])][1]

    async def resize(self, args: Json) -> None:
        await self._process(args).resize(height=args["height"], width=args["width"])

    async def signal(self, args: Json) -> object:
        client, process = self._processes[int(args["process"])]
        return await client.signal_process(process.pid, msgspec.convert(args["options"], gcs.SignalOptions))

    async def kill(self, args: Json) -> object:
        client, process = self._processes[int(args["process"])]
        return await client.signal_process(process.pid, 0)

    async def exit_code(self, args: Json) -> object:
        if not self._process(args).ended:
            raise UtilityVMError("process not exited")  # the original's way to say what ours says by `ended`
        return await self._process(args).wait()

    async def ended(self, args: Json) -> object:
        process = self._process(args)
        self._guest.ended(process.pid, args["body"])
        return await process.wait()


def _settings(args: Json) -> object:
    """What ModifySettings is asked for, in our envelope; the original's resources are structs, whose members stay in their order."""
    asked = args["settings"]
    if asked is None:
        return None
    if asked.keys() - {"RequestType", "ResourceType", "Settings"}:
        return _in_order(asked)
    return gcs.GuestRequest(
        request_type=asked.get("RequestType", UNSET),
        resource_type=asked.get("ResourceType", UNSET),
        settings=_in_order(asked["Settings"]) if "Settings" in asked else UNSET,
    )


def _in_order(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


CALLS: dict[str, Callable[[_Player, Json], Awaitable[object]]] = {
    "Connect": _Player.connect,
    "CreateContainer": _Player.create,
    "CloneContainer": _Player.clone,
    "Start": _Player.start,
    "Shutdown": _Player.shutdown,
    "Terminate": _Player.terminate,
    "Properties": _Player.properties,
    "PropertiesV2": _Player.properties,
    "Container.Modify": _Player.modify_container,
    "Notify+Wait": _Player.notify_and_wait,
    "Modify": _Player.modify,
    "UpdateContainer": _Player.update,
    "DeleteContainerState": _Player.delete,
    "DumpStacks": _Player.dump_stacks,
    "CreateProcess": _Player.create_process,
    "Cmd.Start": _Player.command,
    "ResizeConsole": _Player.resize,
    "Signal": _Player.signal,
    "Kill": _Player.kill,
    "ExitCode": _Player.exit_code,
    "WaitForProcess response": _Player.ended,
}
