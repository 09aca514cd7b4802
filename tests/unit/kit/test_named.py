"""Names at which programs of this host find each other."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from utilityvm.kit.errors import Exists
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets, peer_uid


class Says(asyncio.Protocol):
    """Says who is at the other end, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(str(peer_uid(transport)).encode())
        transport.close()


class Hears(asyncio.Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (as asyncio calls it)
        self.over.set_result(None)


async def heard(name: str) -> bytes:
    hears = Hears()
    await UnixSockets().dial(name, hears)
    await hears.over
    return hears.heard


@pytest.fixture(params=["path", "name"])
def name(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "socket") if request.param == "path" else f"@uvm-test-{new_guid()}"


async def test_who_dials_a_name_is_known_and_the_name_is_free_again_when_it_is_not_served(name: str) -> None:
    for _ in range(2):
        served = await UnixSockets().serve(name, Says)
        assert await heard(name) == str(os.getuid()).encode()
        served.close()
        served.close()
        with pytest.raises(OSError, match="refused|No such file"):
            await heard(name)


async def test_a_path_is_for_its_owners_user_alone_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    served = await UnixSockets().serve(str(path), Says)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Exists, match="another process listens there"):
        await UnixSockets().serve(str(path), Says)
    served.close()
    assert os.listdir(tmp_path) == []  # noqa: PTH208 (as above)


async def test_a_name_that_is_no_path_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    served = await UnixSockets().serve(f"@uvm-test-{new_guid()}", Says)
    assert os.listdir() == []  # noqa: PTH208 (of the folder that it was served in)
    served.close()


async def test_of_what_is_no_socket_of_unix_nobody_knows_who_is_there() -> None:
    server = await asyncio.get_running_loop().create_server(Says, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b"None"
    writer.close()
    server.close()
