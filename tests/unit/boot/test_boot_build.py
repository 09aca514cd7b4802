from pathlib import Path

import pytest

from tests.unit.boot import samples
from utilityvm.boot.build import OwnKernel, build
from utilityvm.kit.errors import Corrupt, Exists, HostError, NotFound, Unsupported
from utilityvm.kit.files import FileLock


def build_at(out: Path, agent: Path) -> None:
    build(out, agent, out.parent / "cache", print)


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent"
    path.write_bytes(samples.elf())
    return path


def test_a_missing_agent_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere: no such agent") as caught:
        build_at(tmp_path / "boot", tmp_path / "nowhere")
    assert "make agent" in caught.value.hint


def test_an_agent_that_is_no_program_is_refused(tmp_path: Path, agent: Path) -> None:
    agent.write_text("#!/bin/sh\n")
    with pytest.raises(Corrupt, match="not an ELF file"):
        build_at(tmp_path / "boot", agent)


def test_a_dynamic_agent_is_refused(tmp_path: Path, agent: Path) -> None:
    agent.write_bytes(samples.elf(interpreter="/lib64/ld-linux-x86-64.so.2"))
    with pytest.raises(Unsupported, match="must be a static program, this one asks for /lib64/ld-linux"):
        build_at(tmp_path / "boot", agent)


@pytest.mark.usefixtures("tools")
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, agent: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("long work")
    with pytest.raises(Exists, match="holds other things than boot files"):
        build_at(tmp_path / "thesis", agent)
    assert (tmp_path / "thesis" / "chapter1").read_text() == "long work"


@pytest.mark.usefixtures("tools")
def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path, agent: Path) -> None:
    (tmp_path / "boot").write_text("a file")
    with pytest.raises(Exists, match="is not a folder"):
        build_at(tmp_path / "boot", agent)


def test_a_host_without_apt_is_told(tmp_path: Path, agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="no apt-get"):
        build_at(tmp_path / "boot", agent)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that are there and must not be run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("apt-get", "apt-cache"):
        (folder / name).write_text("#!/bin/sh\nexit 99\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.usefixtures("tools")
def test_a_host_that_cannot_compile_is_told_before_anything_is_downloaded(tmp_path: Path, agent: Path) -> None:
    own = OwnKernel(tmp_path / "kernels", lambda _done, _about: None)
    with pytest.raises(Unsupported, match="compiling a kernel takes bc, bison, flex, gcc, ld, make, tar, xz, .* which this host lacks"):
        build(tmp_path / "boot", agent, tmp_path / "cache", print, own=own)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "bin"]


@pytest.mark.usefixtures("tools")
def test_a_tool_that_fails_leaves_the_old_boot_files(tmp_path: Path, agent: Path) -> None:
    contents = samples.boot_files(tmp_path / "boot")
    with pytest.raises(HostError, match="apt-cache depends .* ended with 99"):
        build_at(tmp_path / "boot", agent)
    assert {name: (tmp_path / "boot" / name).read_bytes() for name in contents} == contents
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "bin", "boot"]


@pytest.mark.usefixtures("tools")
def test_a_place_that_cannot_be_made_is_told(tmp_path: Path, agent: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="file: "):
        build_at(tmp_path / "file" / "boot", agent)


@pytest.mark.usefixtures("tools")
def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path, agent: Path) -> None:
    (tmp_path / ".boot.uvm-build-x1" / "new").mkdir(parents=True)
    with pytest.raises(HostError):
        build_at(tmp_path / "boot", agent)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "bin"]


@pytest.mark.usefixtures("tools")
def test_a_second_build_waits_for_the_first(tmp_path: Path, agent: Path) -> None:
    first = FileLock(tmp_path)
    first.acquire()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        first.release()

    with pytest.raises(HostError):
        build(tmp_path / "boot", agent, tmp_path / "cache", say)
    assert said == [f"waiting for another build in {tmp_path}"]
