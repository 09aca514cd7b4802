"""Flags of a container: what is wanted by them, and mistakes that are told before anything is made."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from utilityvm.cli import attach
from utilityvm.cli.wishes import add_container_flags, wish_of
from utilityvm.containers.wish import Tmpfs, Ulimit, Volume, Wish
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound


def wanted(*words: str, environment: Mapping[str, str] = MappingProxyType({})) -> Wish:
    parser = argparse.ArgumentParser()
    attach.add_process_flags(parser)
    add_container_flags(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(words)
    return wish_of(args, args.command, environment)


def test_nothing_said_is_left_to_the_image() -> None:
    assert wanted() == Wish()
    assert wanted("ls", "-l") == Wish(args=("ls", "-l"))


def test_each_flag_is_a_wish() -> None:
    words = [
        "-u",
        "7:8",
        "-w",
        "/w",
        "--read-only",
        "-v",
        "/a:/b:ro",
        "-v",
        "data:/c",
        "--tmpfs",
        "/t:size=1m",
        "-m",
        "64m",
        "--cpus",
        "1.5",
        "--pids-limit",
        "9",
        "--shm-size",
        "1m",
        "--mount",
        "type=bind,src=/m,dst=/n",
        "--mount",
        "type=tmpfs,dst=/o",
    ]
    words += ["--hostname", "h", "--cap-add", "NET_ADMIN", "--cap-drop", "ALL", "--ulimit", "nofile=1:2", "--sysctl", "net.x=1", "-t", "id"]
    assert wanted(*words) == Wish(
        args=("id",),
        user="7:8",
        cwd="/w",
        console_size=(24, 80),
        read_only=True,
        volumes=(Volume("/b", path="/a", read_only=True), Volume("/c", name="data"), Volume("/n", path="/m")),
        tmpfs=(Tmpfs("/t", ("noexec", "nosuid", "nodev", "size=1m")), Tmpfs("/o")),
        hostname="h",
        memory=64 << 20,
        cpus=1.5,
        pids=9,
        shm_size=1 << 20,
        cap_add=("NET_ADMIN",),
        cap_drop=("ALL",),
        ulimits=(Ulimit("nofile", 1, 2),),
        sysctls=(("net.x", "1"),),
    )


def test_an_empty_entrypoint_is_none_at_all() -> None:
    assert wanted("--entrypoint", "sh").entrypoint == ("sh",)
    assert wanted("--entrypoint", "").entrypoint == ()


def test_variables_of_files_come_before_those_of_flags(tmp_path: Path) -> None:
    (one := tmp_path / "one").write_text("A=1\nB=1\n")
    (two := tmp_path / "two").write_text("B=2\nMINE\n")
    found = wanted("-e", "C=3", "--env-file", str(one), "--env-file", str(two), "-e", "MINE", "-e", "GONE", environment={"MINE": "x"})
    assert found.env == (("A", "1"), ("B", "1"), ("B", "2"), ("MINE", "x"), ("C", "3"), ("MINE", "x"), ("GONE", None))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-m", "512"], "argument -m/--memory: '512' is 512 bytes of memory; a container needs 6 MiB at least (with a unit: 512m)"),
        (["--cpus", "0"], "argument --cpus: '0' is not a number of processors of 0.01 or more"),
        (["-v", "/data"], "argument -v/--volume: '/data' is a volume without a source (--tmpfs /data for one in memory"),
        (["--name", "a b"], "argument --name: 'a b' cannot name a container"),
        (["--ulimit", "x=1"], "argument --ulimit: 'x=1': no limit is called 'x'"),
    ],
)
def test_a_value_that_makes_no_sense_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    with pytest.raises(SystemExit):
        wanted(*words)
    assert says in capsys.readouterr().err


def test_a_capability_that_does_not_exist_is_refused_at_once() -> None:
    with pytest.raises(InvalidOptions, match="no capability is called 'NET'"):
        wanted("--cap-add", "NET")


def test_a_file_of_variables_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="--env-file: /nowhere: no such file"):
        wanted("--env-file", "/nowhere")
    with pytest.raises(HostError, match="--env-file: .* cannot be read: Is a directory"):
        wanted("--env-file", str(tmp_path))
    (binary := tmp_path / "binary").write_bytes(b"A=\xff")
    with pytest.raises(InvalidOptions, match="--env-file: .* is not UTF-8"):
        wanted("--env-file", str(binary))
