from pathlib import Path

import pytest

from utilityvm.kit.errors import DeadlineExceeded, HostError, NotFound
from utilityvm.kit.proc import run_tool


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
