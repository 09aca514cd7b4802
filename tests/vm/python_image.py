"""A root file system with this host's own Python in it, as an archive."""

import os
import re
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

from utilityvm.kit.proc import run_tool

LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|ensurepip|lib2to3|turtledemo|tkinter|config-[^/]+|dist-packages|site-packages|__pycache__)(/|$)"
)


def write_python_image(archive: Path) -> None:
    """Write the archive: `/usr/bin/python3`, its library, and what both are linked with."""
    program = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    parts = [program, *(path for path in library.rglob("*") if path.is_file() and not LEFT_OUT.search(str(path)))]
    linked = {Path(name) for path in parts if path == program or path.suffix == ".so" for name in _linked(path)}
    with tarfile.open(archive, "w") as tar:
        for path in parts:
            tar.add(path, arcname=str(path))
        for path in sorted(linked):
            tar.add(os.path.realpath(path), arcname=str(path))
        link = tarfile.TarInfo("/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(program)
        tar.addfile(link)


def _linked(path: Path) -> Iterator[str]:
    for line in run_tool(["ldd", path], within=30).splitlines():
        if found := re.search(r"(/\S+) \(0x", line):
            yield found[1]
