"""Programs of a guest that know nothing of our agent, and boot files that have them beside it."""

import os
import subprocess  # noqa: TID251 (the compiler)
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.vm.running import ended

from utilityvm import UtilityVM
from utilityvm.boot import cpio
from utilityvm.boot.files import BootFiles

HERE = Path(__file__).parent
PATH = "/bin/foreign"


@cache
def program() -> bytes:
    """Compile what is beside this file."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "foreign"
        words = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", str(out), "."]
        subprocess.run(words, cwd=HERE, env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}, check=True)
        return out.read_bytes()


def beside_the_agent(boot_files: BootFiles, folder: Path) -> str:
    """Make boot files in `folder` whose initial RAM disk has the program as well: Linux unpacks one archive after the other."""
    (folder / "vmlinux").symlink_to(boot_files.vmlinux)
    added = cpio.archive([cpio.file(PATH[1:], program(), 0o755)])
    (folder / "initrd.img").write_bytes(boot_files.initrd.read_bytes() + added)
    return str(folder)


async def put_into(vm: UtilityVM) -> None:
    """Copy the program into a VM that runs."""
    process = await vm.create_process(["sh", "-c", f"cat >{PATH} && chmod 755 {PATH}"], stdin=True)
    await process.stdin.write(program())
    await process.stdin.write_eof()
    assert await ended(process) == (0, b"", b"")
