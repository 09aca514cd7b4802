"""Our standard streams on the event loop: pipes, files, and what is closed."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from utilityvm.cli.stdio import read_some, write_all


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


async def test_a_pipe_is_read_as_its_bytes_come_and_to_its_end(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    first = asyncio.create_task(read_some(reading, 10))  # noqa: TID251 (awaited below)
    await asyncio.sleep(0)
    assert not first.done()
    os.write(writing, b"abc")
    assert await first == b"abc"
    os.close(writing)
    assert await read_some(reading, 10) == b""


async def test_giving_up_a_read_takes_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    waiting = asyncio.create_task(read_some(reading, 10))  # noqa: TID251 (cancelled)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    os.write(writing, b"abc")
    assert await read_some(reading, 10) == b"abc"


async def test_a_full_pipe_holds_the_writer_up_and_nobody_else(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    data = os.urandom(300_000)
    sending = asyncio.create_task(write_all(writing, data))  # noqa: TID251 (awaited below)
    got = b""
    while len(got) < len(data):
        got += await read_some(reading, 10_000)
    await sending
    assert got == data


async def test_a_file_is_always_ready(tmp_path: Path) -> None:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    await write_all(fd, b"content")
    os.lseek(fd, 0, os.SEEK_SET)
    assert (await read_some(fd, 100), await read_some(fd, 100)) == (b"content", b"")
    os.close(fd)


async def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(writing, False)
    sending = asyncio.create_task(write_all(writing, bytes(200_000)))  # noqa: TID251 (awaited below)
    got = 0
    while got < 200_000:
        got += len(await read_some(reading, 65_536))
    await sending
    assert got == 200_000


async def test_a_reader_that_is_gone_is_a_broken_pipe(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
    with pytest.raises(BrokenPipeError):
        await write_all(writing, b"x")


async def run_closed(script: str, answer: Path) -> str:
    """Run Python with closed standard streams; it gives its answer in a file."""
    script = f"import asyncio, os, socket\nfrom pathlib import Path\nanswer = Path({str(answer)!r})\n{script}"
    process = await asyncio.create_subprocess_exec("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script)
    assert await process.wait() == 0
    return answer.read_text()  # noqa: ASYNC240


async def test_missing_streams_are_opened_on_nothing_before_a_socket_gets_their_numbers(tmp_path: Path) -> None:
    script = """
from utilityvm.cli.main import main
main(["--version"])
ends = socket.socketpair()
assert min(end.fileno() for end in ends) > 2
answer.write_text(" ".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3)))
"""
    assert await run_closed(script, tmp_path / "answer") == "/dev/null /dev/null /dev/null"


@pytest.mark.parametrize("words", [["--version"], ["inspect", "NO NAME"], ["import", "-", "a"], ["run", "--pull", "never", "--nonsense"]])
async def test_what_is_said_to_a_closed_stream_is_lost_and_the_exit_code_is_not(tmp_path: Path, words: list[str]) -> None:
    script = f"""
import sys
from utilityvm.cli.main import main
code = main({words!r})
answer.write_text(f"{{code}} {{[stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]}}")
"""
    code, _, numbers = (await run_closed(script, tmp_path / "answer")).partition(" ")
    assert (int(code), numbers) == ({"--version": 0, "inspect": 2, "import": 12, "run": 125}[words[0]], "[0, 1, 2]")


async def test_what_cannot_be_read_or_written_is_told_by_the_streams_name(tmp_path: Path) -> None:
    script = """
from utilityvm.cli.stdio import read_some, write_all
from utilityvm.kit.errors import HostError
os.open("/", os.O_RDONLY)
os.open("/dev/full", os.O_WRONLY)
async def main():
    said = []
    for work in (read_some(0, 1), write_all(1, b"x")):
        try:
            await work
        except HostError as error:
            said.append(error.message)
    answer.write_text("; ".join(said))
asyncio.run(main())
"""
    said = "standard input cannot be read: Is a directory; standard output cannot be written: No space left on device"
    assert await run_closed(script, tmp_path / "answer") == said
