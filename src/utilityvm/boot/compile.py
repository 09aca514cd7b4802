"""Compile a Linux kernel from its source archive: which tools that takes, which steps, in which environment.

Nothing of the user's environment reaches the build but ``PATH``: the same source, configuration and compiler give the same bytes.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from utilityvm.boot.kconfig import unmet, with_later_names
from utilityvm.kit.errors import Exhausted, HostError, Unsupported
from utilityvm.kit.proc import run_lines, run_tool

SPACE: Final = 3 << 30
"""So many bytes must be free for the source, what is compiled of it, and the compiler's own files."""

OBJECTS: Final = 1850
"""About so many files are compiled."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "KBUILD_BUILD_HOST": "utilityvm",
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "utilityvm",
    "KBUILD_BUILD_VERSION": "1",
    "KCONFIG_NOTIMESTAMP": "1",
    "LC_ALL": "C",
    "TZ": "UTC",
}
"""What the kernel would otherwise take from the host and the hour, and put into the image."""

CONFIGURE: Final = ("make", "KCONFIG_ALLCONFIG=../asked.config", "allnoconfig")
# Else the compiler clears by an instruction that an emulated processor carries out byte by byte: 6 million of them in a boot.
COMPILE: Final = ("make", "KCFLAGS=-mstringop-strategy=libcall", "bzImage", "modules")

_IMAGE = "arch/x86/boot/bzImage"
_RELEASE = "include/config/kernel.release"

_TOOLS: Final[Mapping[str, str]] = {
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "tar": "tar",
    "xz": "xz-utils",
}
_HEADERS: Final[Mapping[str, str]] = {"stdlib.h": "libc6-dev", "gelf.h": "libelf-dev"}
_QUICK_SECONDS = 60
_UNPACK_SECONDS = 1800
_COMPILE_SECONDS = 6 * 3600
_COMPILED = re.compile(r"  (?:CC|AS) +\S+")
_STEP = re.compile(r"  [A-Z][A-Z0-9_]+ +\S+")
_DISK_FULL = "No space left on device"

Progress = Callable[[int, int], None]
"""Told how many files are compiled, and of about how many."""


class Toolchain(msgspec.Struct, frozen=True):
    """The compiler and the linker, by the first line of what they say about themselves."""

    compiler: str
    linker: str


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came out: what ``uname -r`` says, the image (bzImage), the whole configuration, what is built in, and modules by file name."""

    release: str
    image: bytes = field(repr=False)
    config: bytes = field(repr=False)
    built_in: bytes = field(repr=False)
    modules: Mapping[str, bytes] = field(repr=False)


def missing() -> dict[str, str]:
    """Return what compiling a kernel takes and this host lacks, tools and headers, and the Debian package that has each."""
    tools = {tool: package for tool, package in _TOOLS.items() if shutil.which(tool) is None}
    return tools | {header: package for header, package in _HEADERS.items() if "gcc" in tools or not _has_header(header)}


def find_toolchain() -> Toolchain:
    """Look whether everything is there that compiling a kernel takes, and which compiler it is.

    Raises:
        Unsupported: something is missing; the hint has the command that installs it.
    """
    if lacking := missing():
        raise Unsupported(
            f"compiling a kernel takes {', '.join(lacking)}, which this host lacks",
            hint=f"install them: apt-get install {' '.join(sorted(set(lacking.values())))}",
        )
    return Toolchain(*(run_tool([tool, "--version"], within=_QUICK_SECONDS).splitlines()[0] for tool in ("gcc", "ld")))


def compile_kernel(archive: Path, asked: str, work: Path, progress: Progress, *, lock: int) -> Compiled:
    """Compile the kernel whose source is in `archive` (a compressed tar) with the configuration `asked`, in the empty folder `work`.

    What is not asked for is off. Every process that writes into `work` inherits the descriptor `lock`.

    Raises:
        Exhausted: there is not enough room in `work`.
        Unsupported: this kernel does not have an option as we ask for it.
        HostError: a step failed; the message has its last words.
    """
    free = shutil.disk_usage(work).free
    if free < SPACE:
        raise Exhausted(f"{work}: compiling a kernel takes {SPACE >> 20} MiB, {free >> 20} MiB are free", hint="make room there")
    tree, temporary = work / "linux", work / "tmp"
    tree.mkdir()
    temporary.mkdir()
    (work / "asked.config").write_text(with_later_names(asked))
    environment = {**ENVIRONMENT, "PATH": os.environ.get("PATH", os.defpath), "TMPDIR": str(temporary)}

    def run(*argv: str, heed: Callable[[str], bool], within: float) -> None:
        try:
            run_lines(argv, heed=heed, within=within, env=environment, cwd=tree, keep_open=[lock])
        except HostError as error:
            if _DISK_FULL in error.message:
                raise Exhausted(f"{work}: {_DISK_FULL}", hint="make room there") from error
            raise

    run("tar", "--extract", "--strip-components=1", f"--file={archive.resolve()}", heed=_is_step, within=_UNPACK_SECONDS)
    run(*CONFIGURE, heed=_is_step, within=_UNPACK_SECONDS)
    config = (tree / ".config").read_bytes()
    if problems := list(unmet(asked, config.decode())):
        raise Unsupported(f"{archive.name}: this kernel cannot be configured as we need it: {'; '.join(problems)}")
    jobs = f"--jobs={len(os.sched_getaffinity(0))}"
    run(*COMPILE, jobs, heed=_counting(progress), within=_COMPILE_SECONDS)
    return Compiled(
        release=(tree / _RELEASE).read_text().strip(),
        image=(tree / _IMAGE).read_bytes(),
        config=config,
        built_in=(tree / "modules.builtin").read_bytes(),
        modules={path.name: path.read_bytes() for path in sorted(tree.rglob("*.ko"))},
    )


def _has_header(name: str) -> bool:
    try:
        run_tool(["gcc", "-fsyntax-only", "-include", name, "-x", "c", "/dev/null"], within=_QUICK_SECONDS)
    except HostError:
        return False
    return True


def _is_step(line: str) -> bool:
    return _STEP.match(line) is not None


def _counting(progress: Progress) -> Callable[[str], bool]:
    done = 0

    def heed(line: str) -> bool:
        nonlocal done
        if _COMPILED.match(line):
            done += 1
            progress(done, max(done, OBJECTS))
        return _is_step(line)

    return heed
