import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from utilityvm.kit.errors import DeadlineExceeded, HostError, NotFound
from utilityvm.kit.files import FileLock
from utilityvm.kit.proc import run_filter, run_lines, run_tool


def test_the_output_comes_back() -> None:
    assert run_tool(["printf", "%s", "a b"], within=10) == "a b"


def test_the_environment_is_ours_with_additions_and_the_locale_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert run_tool(["sh", "-c", "echo $OURS $MORE $LC_ALL"], within=10, env={"MORE": "2"}) == "1 2 C.UTF-8\n"


def test_a_tool_runs_in_the_folder_it_is_given(tmp_path: Path) -> None:
    assert run_tool(["pwd", "-P"], within=10, cwd=tmp_path) == f"{tmp_path.resolve()}\n"


def test_a_failure_has_the_command_the_code_and_the_last_words() -> None:
    with pytest.raises(HostError) as caught:
        run_tool(["sh", "-c", "seq 20 >&2; exit 3"], within=10)
    assert caught.value.message.startswith("sh -c seq 20 >&2; exit 3: ended with 3: 11\n")
    assert caught.value.message.endswith("\n20")


def test_a_silent_failure_is_told_as_one() -> None:
    with pytest.raises(HostError, match="false: ended with 1: it said nothing"):
        run_tool(["false"], within=10)


def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(NotFound, match="^no-such-tool: command not found$") as caught:
        run_tool(["no-such-tool"], within=10, package="the-package")
    assert caught.value.hint == "install the package the-package"


def test_a_missing_folder_is_not_taken_for_a_missing_tool(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such folder to run true in"):
        run_tool(["true"], within=10, cwd=tmp_path / "nowhere")


def test_a_tool_that_does_not_end_is_killed() -> None:
    with pytest.raises(DeadlineExceeded, match=r"still running after 0\.1 s"):
        run_tool(["sleep", "60"], within=0.1)


PATH = {"PATH": os.environ["PATH"]}


def heed_numbers(heard: list[str]) -> Callable[[str], bool]:
    def heed(line: str) -> bool:
        heard.append(line)
        return line.isdigit()

    return heed


def test_lines_of_both_streams_are_heard_as_they_come() -> None:
    heard: list[str] = []
    run_lines(["sh", "-c", "echo 1; echo two >&2; printf 3"], heed=heed_numbers(heard), within=10, env=PATH)
    assert heard == ["1", "two", "3"]


def test_the_environment_of_a_heeded_tool_is_the_one_it_is_given(tmp_path: Path) -> None:
    heard: list[str] = []
    run_lines(["env"], heed=heed_numbers(heard), within=10, env={**PATH, "ONLY": "this"}, cwd=tmp_path)
    assert sorted(line.partition("=")[0] for line in heard) == ["ONLY", "PATH"]


def test_a_heeded_tool_that_fails_is_quoted_with_the_lines_that_nobody_made_use_of() -> None:
    with pytest.raises(HostError) as caught:
        run_lines(["sh", "-c", "echo wrong; seq 100; exit 3"], heed=heed_numbers([]), within=10, env=PATH)
    assert caught.value.message == "sh -c echo wrong; seq 100; exit 3: ended with 3: wrong"


def test_a_heeded_tool_that_is_missing_is_named() -> None:
    with pytest.raises(NotFound, match="^no-such-tool: command not found$"):
        run_lines(["no-such-tool"], heed=heed_numbers([]), within=10, env=PATH)


# The grandchild says who it is and then holds the pipe open: its end is the end of the pipe.
GRANDCHILD = ["sh", "-c", "sh -c 'echo $$; exec sleep 600' & wait"]


def alive(pid: str) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def ended(pid: str) -> None:
    """Wait for the end of a process that is not a child of ours."""
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(int(pid))
        select.select([fd], [], [], 10)
        os.close(fd)
    assert not alive(pid)


def test_a_heeded_tool_that_does_not_end_is_killed_with_its_children() -> None:
    heard: list[str] = []
    with pytest.raises(DeadlineExceeded, match=r"still running after 0\.5 s"):
        run_lines(GRANDCHILD, heed=heed_numbers(heard), within=0.5, env=PATH)
    ended(heard[0])


def test_a_heeded_tool_that_closes_its_output_and_runs_on_is_killed() -> None:
    with pytest.raises(DeadlineExceeded, match=r"still running after 0\.5 s"):
        run_lines(["sh", "-c", "exec >&- 2>&-; sleep 60"], heed=heed_numbers([]), within=0.5, env=PATH)


def test_a_heeded_tool_is_killed_with_its_children_when_its_caller_is_interrupted() -> None:
    heard: list[str] = []

    def heed(line: str) -> bool:
        heard.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_lines(GRANDCHILD, heed=heed, within=10, env=PATH)
    ended(heard[0])


def test_a_filter_is_fed_and_heard_as_it_goes() -> None:
    """More than all pipes hold, in pieces of any size: neither side waits for the other."""
    pieces = [b"x" * size for size in (1, 300_000, 7, 1_000_000)] * 3
    assert b"".join(run_filter(["cat"], iter(pieces), failed=HostError)) == b"".join(pieces)
    assert list(run_filter(["cat"], iter([]), failed=HostError)) == []


def test_a_filter_that_stops_reading_is_heard_to_its_end() -> None:
    assert b"".join(run_filter(["head", "-c", "5"], iter([b"x" * 1_000_000] * 5), failed=HostError)) == b"xxxxx"


def test_a_filter_that_fails_has_its_last_words_in_the_callers_error() -> None:
    with pytest.raises(DeadlineExceeded, match="^no good$"):
        list(run_filter(["sh", "-c", "cat >/dev/null; echo no good >&2; exit 3"], iter([b"x"]), failed=DeadlineExceeded))
    with pytest.raises(HostError, match="^sh ended with 3$"):
        list(run_filter(["sh", "-c", "exit 3"], iter([b"x"]), failed=HostError))


def test_a_filter_that_is_missing_is_named() -> None:
    with pytest.raises(NotFound, match="^no-such-tool: command not found$"):
        list(run_filter(["no-such-tool"], iter([b"x"]), failed=HostError))


def test_a_filter_is_killed_when_nobody_reads_on_and_when_its_input_fails() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise KeyboardInterrupt

    started = run_filter(["sh", "-c", "echo $$; exec sleep 600"], iter([b"x"]), failed=HostError)
    pid = next(started).decode().strip()
    started.close()
    assert not alive(pid)
    with pytest.raises(KeyboardInterrupt):
        list(run_filter(["cat"], broken(), failed=HostError))


def test_a_lock_is_held_by_the_children_that_inherit_it(tmp_path: Path) -> None:
    """So nobody sweeps a folder away in which a killed owner's children still write."""
    lock, other, go_on = FileLock(tmp_path), FileLock(tmp_path), tmp_path / "go_on"
    os.mkfifo(go_on)

    def heed(_line: str) -> bool:
        lock.release()
        assert not other.acquire(wait=False)
        go_on.write_text("")
        return True

    lock.acquire()
    run_lines(["sh", "-c", "echo held; cat go_on"], heed=heed, within=10, env=PATH, cwd=tmp_path, keep_open=[lock.descriptor])
    assert other.acquire(wait=False)
    other.release()
