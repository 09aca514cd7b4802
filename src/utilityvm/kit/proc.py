"""Run one tool of the host to its end, from synchronous code. Children that live on are another module's."""

import os
import subprocess
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from utilityvm.kit.errors import DeadlineExceeded, HostError, NotFound

_LAST_LINES = 10


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


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
