"""A guest's screen and keyboard, seen and used by VNC as any viewer does."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from utilityvm import Unsupported, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles

from .running import LIMIT, ended, line

ENTER = 0xFF0D


class Viewer:
    """A client of RFB 3.8 (RFC 6143) that knows no more than it needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def meet(self) -> tuple[int, int]:
        """Agree on no authentication, and return the screen's size in pixels."""
        self._writer.write(await self._reader.readexactly(12))
        kinds = await self._reader.readexactly((await self._reader.readexactly(1))[0])
        assert 1 in kinds
        self._writer.write(b"\1")
        assert await self._reader.readexactly(4) == bytes(4)
        self._writer.write(b"\1")
        width, height, form, name = struct.unpack(">HH16sI", await self._reader.readexactly(24))
        assert form[0] == 32
        await self._reader.readexactly(name)
        return width, height

    async def look(self, width: int, height: int) -> int:
        """Return how many pixels are not black."""
        self._writer.write(struct.pack(">BBHi", 2, 0, 1, 0) + struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        assert (await self._reader.readexactly(1)) == b"\0"
        lit = 0
        for _ in range(struct.unpack(">xH", await self._reader.readexactly(3))[0]):
            _, _, across, down, encoding = struct.unpack(">HHHHi", await self._reader.readexactly(12))
            assert encoding == 0
            pixels = await self._reader.readexactly(across * down * 4)
            lit += sum(1 for at in range(0, len(pixels), 4) if any(pixels[at : at + 3]))
        return lit

    async def type(self, text: str) -> None:
        """Press and let go of the key of each character, and Enter."""
        for key in [*map(ord, text), ENTER]:
            self._writer.write(struct.pack(">BBxxI", 4, 1, key) + struct.pack(">BBxxI", 4, 0, key))
        await self._writer.drain()


@asynccontextmanager
async def viewer(path: Path) -> AsyncIterator[Viewer]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Viewer(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def given(boot_files: BootFiles, **options: object) -> dict[str, object]:
    return {"boot_files_path": str(boot_files.folder), "memory_size_in_mb": 256, "processor_count": 1} | options


async def test_the_console_is_seen_and_the_shell_on_it_typed_into(boot_files: BootFiles, tmp_path: Path) -> None:
    if boot_files.manifest.kernel.kind == "source":
        pytest.skip("our own kernel knows no screen, which the next test says")
    path = tmp_path / "screen"
    options = default_options_lcow(**given(boot_files, enable_graphics_console=True, graphics_pipe=str(path)))
    async with asyncio.timeout(2 * LIMIT), await create_lcow(options) as vm:
        await vm.start()
        waiting = await vm.create_process(["sh", "-c", "mkfifo /typed && echo by hand >/text && echo there && cat /typed"])
        assert await line(waiting) == b"there\n"
        async with viewer(path) as first, viewer(path) as second:
            for one in (first, second):
                width, height = await one.meet()
                assert width >= 640
                assert await one.look(width, height) > 1000
            await second.type("dd if=/text of=/typed")  # no key that needs Shift
            assert await ended(waiting) == (0, b"by hand\n", b"")
    assert not path.exists()


async def test_what_shows_no_screen_is_refused_by_name(boot_files: BootFiles, tmp_path: Path) -> None:
    ours = boot_files.manifest.kernel.kind == "source"
    pipe, says = (str(tmp_path / "s"), "the kernel in .* is one of our own") if ours else ("", "ConnectionOptions.NamedPipe: missing")
    with pytest.raises(Unsupported, match=says):
        await create_lcow(default_options_lcow(**given(boot_files, enable_graphics_console=True, graphics_pipe=pipe)))
