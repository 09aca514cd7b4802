"""Tools that behave like those which compile a kernel, in a moment: they count, remember their environment, and may fail."""

import gzip
import shlex
from pathlib import Path

from tests.unit.boot import samples
from utilityvm.boot.modules import GROUPS

RELEASE = "6.1.9-utilityvm"
KERNEL = samples.elf({".text": b"code"})
IMAGE = samples.bzimage(gzip.compress(KERNEL, mtime=0) + len(KERNEL).to_bytes(4, "little"))
MODULE = samples.module()
BUILT_IN = "".join(f"kernel/{name}.ko\n" for names in GROUPS.values() for name in names if name != "virtio_scsi")

_MAKE = """
case "$*" in
*allnoconfig*) cp ../asked.config .config; eval "$(cat {home}/configure)" ;;
*bzImage*)
    echo compiled >>{home}/compilations
    env | grep -v '^\\(PWD\\|SHLVL\\|_\\|OLDPWD\\)=' | sort >{home}/environment
    echo "  HOSTCC  scripts/tool"; echo "  CC      init/main.o"; echo "  AS      entry.o"; echo "  LD      vmlinux"
    eval "$(cat {home}/compile)"
    mkdir -p arch/x86/boot include/config
    cp {home}/image arch/x86/boot/bzImage; cp {home}/built_in modules.builtin
    mkdir -p drivers/scsi; cp {home}/module drivers/scsi/virtio_scsi.ko
    echo {release} >include/config/kernel.release ;;
esac
"""


class FakeToolchain:
    """A folder `bin` for PATH. `compiler` is what gcc says it is; `configure` and `compile` take what `make` runs besides."""

    def __init__(self, home: Path) -> None:
        self.home, self.bin = home, home / "bin"
        self.bin.mkdir(parents=True)
        for name in ("bc", "bison", "flex", "tar", "xz"):
            self.tool(name, "")
        self.tool("make", _MAKE.format(home=shlex.quote(str(home)), release=RELEASE))
        self.tool("ld", "echo 'GNU ld 2.40'")
        self.compiler("gcc (Debian) 12.2.0")
        self.configure("")
        self.compile("")
        (home / "image").write_bytes(IMAGE)
        (home / "built_in").write_text(BUILT_IN)
        (home / "module").write_bytes(MODULE)

    def tool(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def compiler(self, version: str) -> None:
        self.tool("gcc", f"echo {shlex.quote(version)}")

    def configure(self, script: str) -> None:
        (self.home / "configure").write_text(script)

    def compile(self, script: str) -> None:
        (self.home / "compile").write_text(script)

    @property
    def compilations(self) -> int:
        log = self.home / "compilations"
        return len(log.read_text().splitlines()) if log.exists() else 0

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the last compilation."""
        lines = (self.home / "environment").read_text().splitlines()
        return {name: value for name, _, value in (line.partition("=") for line in lines)}
