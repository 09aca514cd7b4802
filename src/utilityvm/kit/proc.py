"""Run one tool of the host to its end, from synchronous code. Children that live on are another module's."""

import os
import selectors
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Container, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, cast

from utilityvm.kit.errors import DeadlineExceeded, HostError, NotFound

_LAST_LINES = 10
_LAST_WORDS = 4096
_PIPE = 1 << 16  # bytes that a pipe holds


def run_tool(
    argv: Sequence[str | Path],
    *,
    within: float,
    package: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    codes: Container[int] = (0,),
) -> str:
    """Run `argv` to its end, at most `within` seconds, and return what it wrote to its standard output.

    The tool reads nothing, and speaks the C locale so that its words can be parsed. `env` adds to our own environment.
    `package` is the distribution's package that has the tool, for the hint. `codes` are the exit codes that are no failure.

    Raises:
        NotFound: there is no such tool.
        DeadlineExceeded: it was still running after `within` seconds, and was killed.
        HostError: it ended with a code that is not in `codes`; the message has its last words.
    """
    words = [str(word) for word in argv]
    environment = {**os.environ, **(env or {}), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=within, check=False)
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise NotFound(f"{cwd}: no such folder to run {words[0]} in") from error
        raise NotFound(f"{words[0]}: command not found", hint=f"install the package {package}" if package else "") from error
    except OSError as error:
        raise HostError(f"{words[0]}: cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"{' '.join(words)}: still running after {within:g} s") from error
    if done.returncode not in codes:
        said = "\n".join(_text(done.stderr.strip() or done.stdout.strip()).splitlines()[-_LAST_LINES:])
        raise HostError(f"{' '.join(words)}: ended with {done.returncode}: {said or 'it said nothing'}")
    return _text(done.stdout)


def run_lines(
    argv: Sequence[str | Path],
    *,
    heed: Callable[[str], bool],
    within: float,
    env: Mapping[str, str],
    cwd: Path | None = None,
    keep_open: Sequence[int] = (),
) -> None:
    """Run `argv` to its end, at most `within` seconds, and give each line of its output, both streams, to `heed` as it comes.

    `heed` returns whether it has made use of the line; the last of the other lines are the tool's words when it fails. `env` is the
    whole environment. The tool reads nothing; its own children inherit the descriptors `keep_open`. Whatever is raised here or by
    `heed`, the tool and its children are killed first; when this process is killed, they end at their next line.

    Raises:
        NotFound: there is no such tool.
        DeadlineExceeded: it was still running after `within` seconds.
        HostError: it ended with another code than 0; the message has its last words.
    """
    words = [str(word) for word in argv]
    said: deque[str] = deque(maxlen=_LAST_LINES)
    deadline = monotonic() + within
    try:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            start_new_session=True,  # so that its children can be killed with it
        )
    except FileNotFoundError as error:
        raise NotFound(f"{words[0]}: command not found") from error
    except OSError as error:
        raise HostError(f"{words[0]}: cannot be run: {error.strerror}") from error
    with child:
        try:
            for line in _lines(cast("IO[bytes]", child.stdout).fileno(), deadline):
                if not heed(line):
                    said.append(line)
            child.wait(max(0.0, deadline - monotonic()))  # it may have closed its output and run on
        except BaseException as error:
            _kill_session(child.pid)
            if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
                raise DeadlineExceeded(f"{' '.join(words)}: still running after {within:g} s") from error
            raise
    if child.returncode != 0:
        raise HostError(f"{' '.join(words)}: ended with {child.returncode}: {chr(10).join(said) or 'it said nothing'}")


def run_filter(argv: Sequence[str], data: Iterator[bytes], *, failed: Callable[[str], Exception]) -> Generator[bytes, None, None]:
    """Let `argv` read `data` on its standard input, and yield what it writes, as it comes. What is ahead is only what pipes hold.

    When what is yielded is not read to its end, the tool is killed; close the iterator then.

    Raises:
        NotFound: there is no such tool.
        Exception: what `failed` makes of its last words, when it ended with another code than 0.
    """
    with tempfile.TemporaryFile() as words:
        try:
            child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, bufsize=0)
        except FileNotFoundError as error:
            raise NotFound(f"{argv[0]}: command not found") from error
        except OSError as error:
            raise HostError(f"{argv[0]}: cannot be run: {error.strerror}") from error
        with child:
            try:
                stdin = cast("IO[bytes]", child.stdin)
                yield from _pumped(stdin, cast("IO[bytes]", child.stdout), data)
                stdin.close()
                child.wait()
            except BaseException:
                child.kill()
                raise
        if child.returncode != 0:
            words.seek(0)
            said = " ".join(_text(words.read(_LAST_WORDS)).split())
            raise failed(said or f"{argv[0]} ended with {child.returncode}")


def _pumped(stdin: IO[bytes], stdout: IO[bytes], data: Iterator[bytes]) -> Iterator[bytes]:
    """Write `data` to `stdin` when there is room, and close it at its end or when nobody reads; yield what comes from `stdout`."""
    os.set_blocking(stdin.fileno(), False)
    rest = memoryview(b"")
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_WRITE)
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if stdin in ready:
                rest = rest or memoryview(next(data, b""))
                try:
                    written = os.write(stdin.fileno(), rest) if rest else 0
                except BrokenPipeError:
                    written = 0
                rest = rest[written:]
                if not written:
                    selector.unregister(stdin)
                    stdin.close()
            if stdout in ready:
                block = os.read(stdout.fileno(), _PIPE)
                if not block:
                    return
                yield block


def _kill_session(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _lines(fd: int, deadline: float) -> Iterator[str]:
    """Yield the lines that come from `fd` until its end; a last one may lack its line feed.

    Raises:
        TimeoutError: the end had not come by `deadline`, of the monotonic clock.
    """
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - monotonic())):
                raise TimeoutError
            data = os.read(fd, 1 << 16)
            if not data:
                break
            *whole, rest = (rest + data).split(b"\n")
            yield from map(_text, whole)
    if rest:
        yield _text(rest)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
