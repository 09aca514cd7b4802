import argparse
from pathlib import Path

import pytest

from tests.unit.boot import samples
from utilityvm.cli import boot_files
from utilityvm.kit.errors import NotFound


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
