"""Networks for the bench: for each side one of its own with a world behind it, all of the same shape. Only root can make them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WORLD = "9.9.9.9"
ADDRESS, GATEWAY, LENGTH = "10.88.0.2", "10.88.0.1", 24
HERE = Path(__file__).resolve().parent


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def network(name: str) -> Iterator[str]:
    """Make a network namespace with an interface eth0 that leads to the world, in which `raw/world.py` answers; return its name."""
    here, there = f"uvm-bench-{os.getpid()}-{name}", f"uvm-bench-{os.getpid()}-{name}-world"
    with ExitStack() as undo:
        for each in (here, there):
            _ip("netns", "add", each)
            undo.callback(subprocess.run, ["ip", "netns", "del", each], check=False)
            _ip("-n", each, "link", "set", "lo", "up")
        _ip("link", "add", "eth0", "netns", here, "type", "veth", "peer", "name", "far", "netns", there)
        for each, link, address in ((here, "eth0", ADDRESS), (there, "far", GATEWAY)):
            _ip("-n", each, "addr", "add", f"{address}/{LENGTH}", "dev", link)
            _ip("-n", each, "link", "set", link, "up")
        _ip("-n", there, "addr", "add", f"{WORLD}/32", "dev", "lo")
        _ip("-n", here, "route", "add", "default", "via", GATEWAY)
        world = subprocess.Popen(
            inside(there, sys.executable, str(HERE / "raw" / "world.py")), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        undo.callback(world.wait)
        assert world.stdin
        assert world.stdout
        undo.callback(world.stdin.close)
        assert world.stdout.readline() == b"ready\n"
        undo.callback(world.stdout.close)
        yield here


def inside(name: str, *argv: str) -> list[str]:
    """Return the words that run `argv` in a namespace."""
    return ["ip", "netns", "exec", name, *argv]
