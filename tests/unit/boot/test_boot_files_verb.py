import argparse
import io
from pathlib import Path

import pytest

from tests.unit.boot import samples
from utilityvm.boot.manifest import CompiledRecord, KernelRecord
from utilityvm.cli import boot_files
from utilityvm.kit.errors import InvalidOptions, NotFound, Unsupported


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    boot_files.add_arguments(parser)
    args = parser.parse_args(words)
    code: int = args.run(args)
    return code


def test_show_says_what_is_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = samples.boot_files(tmp_path / "boot")
    assert run("show", "--out", str(tmp_path / "boot")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"folder    {tmp_path / 'boot'}"
    assert lines[1] == "kernel    6.1.0-1-amd64 (distribution, x86_64)"
    assert [line.split(",")[0] for line in lines if line.startswith("file")] == [f"file      {name}" for name in sorted(contents)]
    assert lines[-1].startswith("valid:")


def test_show_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        run("show", "--out", str(tmp_path / "boot"))


def test_build_wants_an_agent(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such agent"):
        run("build", "--out", str(tmp_path / "boot"), "--agent", str(tmp_path / "agent"))
    assert list(tmp_path.iterdir()) == []


def test_one_of_the_two_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run()
    assert "build|show" in capsys.readouterr().err


@pytest.fixture
def agent(tmp_path: Path) -> str:
    path = tmp_path / "agent"
    path.write_bytes(samples.elf())
    return str(path)


def test_a_host_without_apt_is_told_to_name_a_mirror(tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UVM_DEBIAN_MIRROR", raising=False)
    with pytest.raises(Unsupported, match="no apt-get") as caught:
        run("build", "--out", str(tmp_path / "boot"), "--agent", agent)
    assert "--mirror URL, or UVM_DEBIAN_MIRROR=URL" in caught.value.hint


def test_the_newest_is_for_mirrors(tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UVM_DEBIAN_MIRROR", raising=False)
    with pytest.raises(InvalidOptions, match="--newest: is for a mirror"):
        run("build", "--newest", "--out", str(tmp_path / "boot"), "--agent", agent)


@pytest.mark.parametrize("words", [["--mirror", "nowhere:1"], ["--mirror", "http://127.0.0.1:1/debian", "--mirror", "nowhere:1"]])
def test_mirrors_named_by_flag_are_used(tmp_path: Path, agent: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVM_DEBIAN_MIRROR", "other:2")
    with pytest.raises(InvalidOptions, match="nowhere:1: not the address of a mirror"):
        run("build", *words, "--out", str(tmp_path / "boot"), "--agent", agent)


def test_mirrors_named_by_the_environment_are_used(tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UVM_DEBIAN_MIRROR", "http://127.0.0.1:1/debian nowhere:1")
    with pytest.raises(InvalidOptions, match="nowhere:1: not the address of a mirror"):
        run("build", "--out", str(tmp_path / "boot"), "--agent", agent)


def test_show_says_what_a_kernel_of_our_own_was_compiled_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = CompiledRecord(key="1a", config_sha256="2b", compiler="gcc 12", linker="GNU ld 2.40")
    samples.boot_files(tmp_path / "boot", KernelRecord(kind="source", release="6.1.9-utilityvm", compiled=compiled))
    assert run("show", "--out", str(tmp_path / "boot")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["kernel    6.1.9-utilityvm (source, x86_64)", "compiled  1a: gcc 12; GNU ld 2.40; configuration 2b"]


def test_elsewhere_than_on_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    teller = boot_files._Teller()
    for done in range(1, 1001):
        teller.compiled(done, 1000)
    teller.say("linked")
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"compiled {done} of about 1000 files" for done in range(50, 1001, 50)), "linked"]


def test_on_a_terminal_progress_is_one_line_that_overwrites_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    teller = boot_files._Teller()
    teller.say("compiling")
    teller.compiled(1, 3)
    teller.compiled(2, 3)
    teller.say("linked")
    teller.say("done")
    shown = ["compiling\n", "\rcompiled 1 of about 3 files", "\rcompiled 2 of about 3 files", "\nlinked\n", "done\n"]
    assert terminal.getvalue() == "".join(shown)
