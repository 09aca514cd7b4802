"""Go's ttrpc at both ends: containerd's own shim serves our client, and is the client of our server when it tells of events."""

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Final

import pytest

from utilityvm.kit.errors import NotFound, Unsupported, UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.ttrpc.client import Client
from utilityvm.ttrpc.server import Server, Unary
from utilityvm.wire.protobuf import Field, Message
from utilityvm.wire.ttrpc import Metadata

SHIM: Final = "containerd-shim-runc-v2"
FETCHED: Final = Path(__file__).parents[3] / "build" / "containerd" / "usr" / "bin"  # by `make setup-containerd`
SEARCHED: Final = os.pathsep.join([str(FETCHED), os.environ["PATH"]])
TASK: Final = "containerd.task.v2.Task"
NAMESPACE: Final = {"containerd-namespace-ttrpc": ("uvm-test",)}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run containers by runc"),
    pytest.mark.skipif(
        None in [shutil.which(tool, path=SEARCHED) for tool in (SHIM, "runc")],
        reason="containerd's shim is not here: make setup-containerd",
    ),
]


class Task(Message, frozen=True, kw_only=True):
    """The beginning of all requests: a container's id, and its bundle where it is created."""

    id: Annotated[str, Field(1)] = ""
    bundle: Annotated[str, Field(2)] = ""


class Connected(Message, frozen=True, kw_only=True):
    shim_pid: Annotated[int, Field(1, bits=32, signed=False)] = 0


class Envelope(Message, frozen=True, kw_only=True):
    namespace: Annotated[str, Field(2)] = ""
    topic: Annotated[str, Field(3)] = ""


class Forward(Message, frozen=True, kw_only=True):
    envelope: Annotated[Envelope | None, Field(1)] = None


class Nothing(Message, frozen=True, kw_only=True):
    pass


class Shim:
    """A shim that runs, and what it told our server."""

    def __init__(self, bundle: Path) -> None:
        self.id, self.bundle = new_guid(), bundle
        self.told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.client: Client

    async def forward(self, request: Forward, metadata: Metadata) -> Nothing:
        assert request.envelope is not None
        assert metadata == NAMESPACE
        self.told.put_nowait((request.envelope.namespace, request.envelope.topic))
        return Nothing()

    async def ask(self, method: str, bundle: str = "") -> None:
        await self.client.call(TASK, method, Task(id=self.id, bundle=bundle), Nothing, within=20, metadata=NAMESPACE)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A container that has this host's programs and runs one of them; and the pipe that a shim logs to."""
    shared = [name for name in ("bin", "lib", "lib64", "usr") if Path("/", name).exists()]
    for name in (*shared, "proc"):
        (tmp_path / "rootfs" / name).mkdir(parents=True)
    mounts = [{"destination": f"/{name}", "type": "bind", "source": f"/{name}", "options": ["rbind", "ro"]} for name in shared]
    spec = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
    }
    (tmp_path / "config.json").write_text(json.dumps(spec))
    os.mkfifo(tmp_path / "log")
    return tmp_path


@asynccontextmanager
async def running(bundle: Path) -> AsyncIterator[Shim]:
    shim, events, log = Shim(bundle), str(bundle / "events.sock"), os.open(bundle / "log", os.O_RDWR | os.O_NONBLOCK)
    server = Server("events", {"containerd.services.events.ttrpc.v1.Events": {"Forward": Unary(Forward, shim.forward)}})
    await server.serve(UnixSockets(), events)
    starting = await asyncio.create_subprocess_exec(
        SHIM,
        *("-namespace", "uvm-test", "-id", shim.id, "-address", f"{bundle}/none.sock", "-publish-binary", "/bin/true", "start"),
        cwd=bundle,
        env={**os.environ, "PATH": SEARCHED, "TTRPC_ADDRESS": events, "GRPC_ADDRESS": f"{bundle}/none.sock"},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await starting.communicate()
    address = said.decode().removeprefix("unix://")
    shim.client = await Client.dial(UnixSockets(), address, "shim")
    pid = (await shim.client.call(TASK, "Connect", Task(id=shim.id), Connected, within=20)).shim_pid
    try:
        yield shim
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await shim.client.aclose()
        await server.aclose()
        with suppress(FileNotFoundError):
            os.unlink(address)  # noqa: PTH108 (which a shim that is killed leaves)
        os.close(log)


async def test_a_container_lives_and_ends_and_its_events_come_to_our_server(bundle: Path) -> None:
    async with running(bundle) as shim:
        try:
            await shim.ask("Create", str(bundle))
        except UtilityVMError as error:
            pytest.skip(f"runc makes no container here: {error}")
        await shim.ask("Start")
        told = [await shim.told.get() for _ in range(3)]
        await shim.ask("Delete")
        told.append(await shim.told.get())
        assert told == [("uvm-test", f"/tasks/{what}") for what in ("create", "start", "exit", "delete")]


async def test_what_the_shim_refuses_has_our_errors(bundle: Path) -> None:
    async with running(bundle) as shim:
        with pytest.raises(NotFound, match="^container not created: not found$"):
            await shim.ask("State")
        with pytest.raises(Unsupported, match="^method Nonsense$"):
            await shim.ask("Nonsense")
        with pytest.raises(Unsupported, match="^service other$"):
            await shim.client.call("other", "State", Task(), Nothing, within=20)


async def test_a_shim_that_ends_is_lost_to_its_client(bundle: Path) -> None:
    async with running(bundle) as shim:
        await shim.ask("Shutdown")
        await shim.client.lost
