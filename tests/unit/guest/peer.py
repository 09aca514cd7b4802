"""The guest's end of a bridge, played by the test: it sees every frame and says what it wants, when it wants."""

import asyncio
import json
from typing import TYPE_CHECKING

from tests.unit.clock import turns

from utilityvm.guest.bridge import Bridge
from utilityvm.guest.client import GuestClient
from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame, FrameReader, encode

if TYPE_CHECKING:
    from utilityvm.kit.errors import UtilityVMError


class Peer:
    """Is the host's `GuestStream`; `bridge` and `client` are the host's end. While `deaf`, it takes nothing."""

    def __init__(self) -> None:
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._reader = FrameReader()
        self._hears = asyncio.Event()
        self._hears.set()
        self.asked: list[Frame] = []
        self.lost: list[UtilityVMError] = []
        self.closed = False
        self.bridge = Bridge(self, "vm t", self.lost.append)
        self.client = GuestClient(self.bridge)
        self.client.capabilities = gcs.Capabilities(
            runtime_os_type="linux",
            guest_defined=gcs.GuestDefinedCapabilities(delete_container_state_supported=True, attach_process_supported=True),
        )

    # -- as the host's stream ---------------------------------------------------------------------------------------

    async def read(self, limit: int = -1) -> bytes:  # noqa: ARG002 (the port's signature)
        return await self._inbox.get()

    async def write(self, data: bytes) -> None:
        await self._hears.wait()
        self.asked += self._reader.feed(data)

    async def write_eof(self) -> None:
        return

    def read_only(self) -> None:
        return

    def close(self) -> None:
        self.closed = True

    # -- as the guest -----------------------------------------------------------------------------------------------

    def deaf(self, *, deaf: bool) -> None:
        """Take nothing any more, or again."""
        if deaf:
            self._hears.clear()
        else:
            self._hears.set()

    def send(self, data: bytes) -> None:
        """Send bytes; none is the end."""
        self._inbox.put_nowait(data)

    def answer(self, number: int, **body: object) -> None:
        """Answer the `number`-th request that was seen, with success unless the body says otherwise."""
        asked = self.asked[number]
        self.send(encode(Frame(gcs.response_type(asked.type), asked.id, json.dumps({"Result": 0, **body}).encode())))

    def notify(self, container_id: str, kind: str = "UnexpectedExit") -> None:
        """Tell of a container's end."""
        self.send(encode(Frame(gcs.NOTIFICATION_WORD, 0, json.dumps({"ContainerId": container_id, "Type": kind}).encode())))

    def words(self) -> list[int]:
        """The types of the requests that were seen."""
        return [frame.type for frame in self.asked]


async def refused(work: "asyncio.Task[object]") -> BaseException | None:
    """Let everything happen, and return what `work` failed with."""
    await turns()
    assert work.done()
    return asyncio.CancelledError() if work.cancelled() else work.exception()
