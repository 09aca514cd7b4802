"""The program and the commands of docs/how-to/network.md run as they are printed, on a host of the test's own with a world beyond it."""

import ast
import asyncio
import os
import re
import socket
import subprocess  # noqa: TID251 (in the folder where a reader would run it)
import sys
from pathlib import Path

import pytest

from .networks import WORLD, inside, needs_passt, serving

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "network.md").read_text()
PING_RANGE = re.findall(r"`sysctl net\.ipv4\.ping_group_range='(.*)'`", PAGE)[0]

pytestmark = [
    pytest.mark.usefixtures("boot_files"),
    pytest.mark.root("make a host for the test"),
    needs_passt,
]


def block(language: str) -> str:
    """The first block of code in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def output(host: str, words: list[str | Path]) -> str:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with inside(host):
        return subprocess.run(words, env=env, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout


def test_the_program_runs(hosts: tuple[str, str], tmp_path: Path) -> None:
    (program := tmp_path / "program.py").write_text(block("python"))
    published, refused = output(hosts[0], [sys.executable, program]).splitlines()
    assert published == "127.0.0.1:8080 -> 80/tcp"
    assert set(ast.literal_eval(refused)) <= {"group"}


async def test_a_page_of_the_world_is_read_and_rules_are_taken(hosts: tuple[str, str]) -> None:
    """The world is the test's; the command that the page leaves out is one that asks for nothing."""
    lines = [line.replace("example.org", WORLD).replace("…", "echo nothing asked") for line in block("sh").splitlines()]
    wanted = [line for line in lines if "wget" in line or "--allow" in line]
    assert len(wanted) == 2
    async with serving(hosts[1], WORLD, 80, b"HTTP/1.0 200 OK\r\n\r\nhello\n", after=b"\r\n\r\n"):
        said = await asyncio.to_thread(output, hosts[0], ["/bin/sh", "-ec", "\n".join(wanted)])
    assert said == "hello\nnothing asked\n"


def test_echoes_come_back_where_every_user_may_send_them_and_who_waits_for_an_answer_can_give_up(hosts: tuple[str, str]) -> None:
    with inside(hosts[0]):
        Path("/proc/sys/net/ipv4/ping_group_range").write_text(PING_RANGE)
    (waiting,) = re.findall(r"`(timeout \d+ wget .*) …`", PAGE)
    script = f"ping -c 1 {WORLD}; {waiting.replace('5', '1')} http://{WORLD}/; echo ended with $?"
    with inside(hosts[1]):
        silent = socket.create_server((WORLD, 80))
    with silent:
        said = output(hosts[0], ["uvm", "boot", "--network", "user", "--", "sh", "-c", script])
    assert "1 packets transmitted, 1 packets received, 0% packet loss" in said
    assert said.splitlines()[-1] == "ended with 143"
