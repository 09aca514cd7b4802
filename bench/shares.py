"""How fast a share is, from a real VM: a tree of 10 000 files and a file of 1 GiB, over our server and over Debian's diod in its place.

By hand, on a quiet machine, some fifteen minutes a round: `python bench/shares.py --out docs/measurements/shares.json`; `tools/tables.py`
makes the page's table of it. The sides take turns, each in a VM of its own and behind the same relay; see `SIDES`.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utilityvm import create_lcow, default_options_lcow
from utilityvm.compute.plan9.spec import ShareSpec
from utilityvm.compute.qemu import plan9 as shares
from utilityvm.guest.transport import GuestStream
from utilityvm.kit.aio import Scope
from utilityvm.schema.devices import Plan9Share
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedDirectory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.wire import ninep

FILES = 100
LOADER = "/tmp/tools/ld-linux-x86-64.so.2"


def make_tree(folder: Path, folders: int) -> None:
    """Make folders of 100 files each, all in git's index, and git with what it needs to run beside them."""
    for number in range(folders):
        sub = folder / "tree" / f"folder{number}"
        sub.mkdir(parents=True)
        for each in range(FILES):
            (sub / f"file{each}").write_text(f"{number} {each}\n")
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(folder / "tree"), *words], check=True)
    time.sleep(1.1)  # what is as young as the index, git reads again
    subprocess.run(["git", "-C", str(folder / "tree"), "status", "-s"], check=True)
    shutil.copy2(folder / "tree" / ".git" / "index", folder / "index")
    tools = folder / "tools"
    tools.mkdir()
    git = need("git", "git")
    shutil.copy(git, tools / "git")
    for line in subprocess.run(["ldd", git], check=True, capture_output=True, text=True).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                shutil.copy(word, tools)


# It becomes other users, so it has no user namespace.
_NAMESPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup")


def jail(path: str) -> list[str]:
    """Return the words that put diod where it sees the share and its libraries alone."""
    diod = need("diod", "diod")
    linked = subprocess.run(["ldd", diod], check=True, capture_output=True, text=True).stdout.split()
    seen = [diod, "/etc/ld.so.cache", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", *(word for word in linked if word.startswith("/"))]
    shown = [word for file in seen for word in ("--ro-bind", file, file)]
    rights = [word for right in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID") for word in ("--cap-add", f"CAP_{right}")]
    return ["bwrap", *_NAMESPACES, "--die-with-parent", "--cap-drop", "ALL", *rights, *shown, "--dev", "/dev", "--bind", path, path, "--"]


class Diod:
    """diod in the place of `shares._Server`: one process for each connection."""

    jailed = False

    def __init__(self, _vm: str, _name: str, spec: ShareSpec) -> None:
        self._spec, self._tasks = spec, Scope("diod")
        self._children: list[subprocess.Popen[bytes]] = []

    async def start(self) -> None:
        pass

    def connect(self, stream: GuestStream, chosen: ninep.Chosen) -> int:
        ours, theirs = socket.socketpair()
        fd = str(theirs.fileno())
        words = jail(self._spec.path) if self.jailed else []
        words += [need("diod", "diod"), "-f", "-n", "-S", "-U", "root", "-r", fd, "-w", fd, "-e", self._spec.path, "-L", "stderr"]
        self._children.append(subprocess.Popen(words, pass_fds=[theirs.fileno()]))
        theirs.close()
        ours.sendall(ninep.encode(0xFFFF, ninep.Version(chosen.msize, ninep.VERSION)))
        ours.recv(int.from_bytes(ours.recv(4), "little") - 4)
        ours.setblocking(False)
        self._tasks.start("in", shares._to_server(stream, ours, chosen.rest))
        self._tasks.start("out", shares._to_guest(stream, ours))
        return 0

    async def aclose(self) -> None:
        await self._tasks.aclose()
        for child in self._children:
            child.kill()
            child.wait()


def change(kind: str, path: str) -> ModifySettingRequest:
    return ModifySettingRequest(
        resource_path=shares.RESOURCE,
        request_type=kind,
        settings=Plan9Share(name=path, access_name=path, path=path, port=564, flags=4),
        guest_request=GuestRequest(
            request_type=kind,
            resource_type="MappedDirectory",
            settings=LCOWMappedDirectory(mount_path="/run/share", share_name=path, port=564),
        ),
    )


GIT_STATUS = f"{LOADER} --library-path /tmp/tools /tmp/tools/git -c safe.directory='*' -C /run/share/tree status -s"
WORK = {
    "copy git": "cp -r /run/share/tools /tmp/tools",
    "find": "find /run/share/tree | wc -l",
    "git status, the first": GIT_STATUS,
    "git status again": GIT_STATUS,
    "write 1 GiB": "dd if=/dev/zero of=/run/share/big bs=1M count=1024 conv=fsync",
    "read 1 GiB": "dd if=/run/share/big of=/dev/null bs=1M",
}


@dataclass(frozen=True)
class Side:
    """A server, and the bytes of its longest message."""

    server: str
    msize: int


SMALL = 64 << 10
SIDES = {
    "diod, jailed": Side("diod-jailed", SMALL),
    "ours, messages as diod's": Side("ours", SMALL),
    "ours": Side("ours", ninep.MAX_MSIZE),
    "diod, not jailed": Side("diod", SMALL),
}
"""diod refuses messages over 64 KiB. Jailed it is in namespaces of its own with its libraries and the share."""


async def measured(side: Side, folder: Path, names: list[str]) -> dict[str, float]:
    """Return the seconds of each work in a new VM, with git's index as the host left it: a guest's first `git status` writes its own."""
    taken = {}
    shutil.copy2(folder / "index", folder / "tree" / ".git" / "index")
    with serving(side):
        async with await create_lcow(default_options_lcow(memory_size_in_mb=512, processor_count=1)) as vm:
            await vm.start()
            await vm.modify(change("Add", str(folder)))
            for name in names:
                began = time.perf_counter()
                done = await vm.run(["sh", "-c", WORK[name]])
                taken[name] = round(time.perf_counter() - began, 2)
                if done.exit_code:
                    raise CannotMeasureError(f"{name}: ended with {done.exit_code}: {done.stderr.decode(errors='replace')[-300:]}")
                print(f"{side.server} {side.msize >> 10} KiB, {name}: {taken[name]} s", file=sys.stderr)
            await vm.modify(change("Remove", str(folder)))
    (folder / "big").unlink(missing_ok=True)
    return taken


@contextmanager
def serving(side: Side) -> Iterator[None]:
    """Let shares be served by a side within it."""
    before = shares._Server, ninep.MAX_MSIZE
    Diod.jailed = side.server == "diod-jailed"
    ninep.MAX_MSIZE = side.msize  # type: ignore[misc]
    if side.server != "ours":
        shares._Server = Diod  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        shares._Server, ninep.MAX_MSIZE = before  # type: ignore[misc]


class CannotMeasureError(Exception):
    """Something that is needed is missing, or went wrong."""


def need(program: str, package: str) -> str:
    """Return where a program is."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        raise CannotMeasureError(f"{program} is missing: apt-get install {package}")
    return found


async def turns(sides: list[str], rounds: int, folders: int, names: list[str]) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each side's work, one figure a round; every second round goes backwards."""
    need("git", "git")
    if any(SIDES[side].server != "ours" for side in sides):
        need("diod", "diod")
    if any(SIDES[side].server == "diod-jailed" for side in sides):
        need("bwrap", "bubblewrap")
    figures: dict[str, dict[str, list[float]]] = {side: {} for side in sides}
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        make_tree(folder, folders)
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                for name, seconds in (await measured(SIDES[side], folder, names)).items():
                    figures[side].setdefault(name, []).append(seconds)
    finally:
        shutil.rmtree(folder)
    return figures


def main() -> int:
    """Measure and print; 2 when it cannot be done."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--side", action="append", choices=SIDES, help="only this (again for more; default: all but the last)")
    parser.add_argument("--only", action="append", choices=WORK, help="only this work (again for more; git needs `copy git` first)")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folders", type=int, default=100, help="of 100 files each")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the figures go")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    try:
        figures = asyncio.run(turns(args.side or list(SIDES)[:-1], args.rounds, args.folders, args.only or list(WORK)))
    except CannotMeasureError as error:
        print(f"shares: {error}", file=sys.stderr)
        return 2
    text = json.dumps({"files": args.folders * FILES, "load_before": load, "load_after": os.getloadavg()[0], "seconds": figures}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
