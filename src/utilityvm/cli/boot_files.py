"""`uvm boot-files`: build the kernel and initial RAM disk that VMs boot from, or show what is there."""

import argparse
import sys
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from utilityvm.boot.files import BootFiles
    from utilityvm.boot.packages import Archive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what comes after `uvm boot-files`; the default `run` is what carries it out."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="build|show")
    build = verbs.add_parser("build", help="build them from the distribution's packages; nothing is installed, root is not needed")
    show = verbs.add_parser("show", help="check them and say what is inside")
    for verb in (build, show):
        verb.add_argument("--out", type=Path, metavar="DIR", help="the folder of boot files (default: where VMs look for them)")
    build.add_argument("--agent", type=Path, metavar="PATH", help="the guest agent (default: the package's own)")
    build.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="take Debian 12's packages from this mirror, not from apt; may be named again for a mirror of Debian's security archive "
        "(default: what UVM_DEBIAN_MIRROR names, with blanks between)",
    )
    build.add_argument(
        "--newest", action="store_true", help="from a mirror, take the newest packages that its signed lists offer, not the pinned ones"
    )
    build.add_argument(
        "--kernel",
        choices=["distribution", "source"],
        default="distribution",
        help="the distribution's kernel as it is, or one that boots in half the time, compiled here from the distribution's source: "
        "minutes the first time, then kept (default: distribution)",
    )
    build.set_defaults(run=_build)
    show.set_defaults(run=_show)


def _build(args: argparse.Namespace) -> int:
    from utilityvm.boot.build import OwnKernel, build, find_agent
    from utilityvm.store.layout import Layout

    layout, teller = Layout.of_user(), _Teller()
    own = OwnKernel(layout.kernels, teller.compiled) if args.kernel == "source" else None
    archive = _archive(args, layout.packages)
    built = build(args.out or layout.boot_files, args.agent or find_agent(), layout.packages, teller.say, archive, own)
    print(f"boot files of kernel {built.manifest.kernel.release} are in {built.folder}")
    return 0


def _archive(args: argparse.Namespace, cache: Path) -> "Archive":
    from utilityvm.boot import pins
    from utilityvm.boot.apt import Apt
    from utilityvm.boot.mirror import Mirror
    from utilityvm.kit.errors import InvalidOptions

    if urls := args.mirror or environ.get("UVM_DEBIAN_MIRROR", "").split():
        return Mirror(urls, cache, pins.load(), newest=args.newest)
    if args.newest:
        raise InvalidOptions("--newest: is for a mirror; apt always gives the newest that its lists have", hint="name one: --mirror URL")
    return Apt()


_STEPS: Final = 20
"""So many lines of progress are written where they cannot overwrite each other."""


@final
class _Teller:
    """Says what happens: a line a step, and one line of progress that overwrites itself on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._unfinished = False
        self._told = 0

    def say(self, line: str) -> None:
        """Write a line of its own."""
        print(f"\n{line}" if self._unfinished else line, flush=True)
        self._unfinished = False

    def compiled(self, done: int, about: int) -> None:
        """Write how far compiling has come."""
        line = f"compiled {done} of about {about} files"
        if self._terminal:
            print(f"\r{line}", end="", flush=True)
            self._unfinished = True
        elif (step := _STEPS * done // about) > self._told:
            self._told = step
            print(line, flush=True)


def _show(args: argparse.Namespace) -> int:
    from utilityvm.boot.files import load
    from utilityvm.store.layout import Layout

    print("\n".join(_lines(load(args.out or Layout.of_user().boot_files, digests=True))))
    return 0


def _lines(found: "BootFiles") -> list[str]:
    manifest = found.manifest
    lines = [f"folder    {found.folder}", f"kernel    {manifest.kernel.release} ({manifest.kernel.kind}, {manifest.architecture})"]
    if compiled := manifest.kernel.compiled:
        lines.append(f"compiled  {compiled.key}: {compiled.compiler}; {compiled.linker}; configuration {compiled.config_sha256}")
    lines.append(f"agent     {manifest.agent.size} bytes, sha256 {manifest.agent.sha256}")
    lines += [f"file      {name}, {record.size} bytes, sha256 {record.sha256}" for name, record in sorted(manifest.files.items())]
    lines += [f"package   {package.name} {package.version}, sha256 {package.sha256}" for package in manifest.packages]
    return [*lines, "valid: sizes, kinds and digests are those of the manifest"]
