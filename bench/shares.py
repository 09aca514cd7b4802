"""How fast a share is, from a real VM: a tree of 10 000 files and a file of 1 GiB. By hand, on a quiet machine: `python bench/shares.py`.

``--server diod`` puts Debian's diod in the place of our server, behind the same relay, ``--server diod-jailed`` in namespaces of its own
with nothing but its libraries and the share; ``--msize`` limits messages.
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
from pathlib import Path

from utilityvm import UtilityVM, create_lcow, default_options_lcow
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
    tools = folder / "tools"
    tools.mkdir()
    git = shutil.which("git")
    assert git
    shutil.copy(git, tools / "git")
    for line in subprocess.run(["ldd", git], check=True, capture_output=True, text=True).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                shutil.copy(word, tools)


# It becomes other users, so it has no user namespace.
_NAMESPACES = ("--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup")


def jail(path: str) -> list[str]:
    """Return the words that put diod where it sees the share and its libraries alone."""
    diod = shutil.which("diod", path=f"{os.environ['PATH']}:/usr/sbin")
    assert diod
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
        words += ["diod", "-f", "-n", "-S", "-U", "root", "-r", fd, "-w", fd, "-e", self._spec.path, "-L", "stderr"]
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


WORK = {
    "copy git": "cp -r /run/share/tools /tmp/tools",
    "find": "find /run/share/tree | wc -l",
    "find again": "find /run/share/tree | wc -l",
    "find -size": "find /run/share/tree -size +1000k | wc -l",
    "git status": f"{LOADER} --library-path /tmp/tools /tmp/tools/git -c safe.directory='*' -C /run/share/tree status -s",
    "write 1 GiB": "dd if=/dev/zero of=/run/share/big bs=1M count=1024 conv=fsync",
    "read 1 GiB": "dd if=/run/share/big of=/dev/null bs=1M",
    "read 1 GiB, 64 KiB pieces": "dd if=/run/share/big of=/dev/null bs=64k",
}


async def measured(vm: UtilityVM, names: list[str]) -> dict[str, float]:
    taken = {}
    for name in names:
        began = time.perf_counter()
        done = await vm.run(["sh", "-c", WORK[name]])
        taken[name] = round(time.perf_counter() - began, 2)
        print(f"{name}: {taken[name]} s", done.exit_code, done.stdout[-60:], done.stderr[-100:], file=sys.stderr)
    return taken


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", choices=["ours", "diod", "diod-jailed"], default="ours")
    parser.add_argument("--msize", type=int, default=ninep.MAX_MSIZE)
    parser.add_argument("--only", action="append")
    parser.add_argument("--folders", type=int, default=100, help="of 100 files each")
    args = parser.parse_args()
    ninep.MAX_MSIZE = args.msize  # type: ignore[misc]
    if args.server != "ours":
        Diod.jailed = args.server == "diod-jailed"
        shares._Server = Diod  # type: ignore[misc, assignment]
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        make_tree(folder, args.folders)
        async with await create_lcow(default_options_lcow(memory_size_in_mb=512, processor_count=1)) as vm:
            await vm.start()
            await vm.modify(change("Add", str(folder)))
            taken = await measured(vm, args.only or list(WORK))
            await vm.modify(change("Remove", str(folder)))
        print(json.dumps({"server": args.server, "msize": args.msize, "load": os.getloadavg()[0], "seconds": taken}))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())
