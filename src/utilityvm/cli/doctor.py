"""`uvm doctor`: what this host can do for utility VMs, and why not."""

import argparse
import asyncio
import io
import os
import shutil
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from utilityvm import __version__
from utilityvm.boot.files import BootFiles, load
from utilityvm.compute.qemu.facts import Accel
from utilityvm.compute.qemu.jail import Jail, hint
from utilityvm.compute.qemu.service import QemuService
from utilityvm.kit.errors import EXIT_CODES, Kind, UtilityVMError
from utilityvm.kit.memory import MEMINFO, total_and_available
from utilityvm.store.layout import Layout

T = TypeVar("T")


class Mark(StrEnum):
    """How good it is: `WEAK` lets a VM boot, and is less than it could be; with `FAIL` none boots."""

    OK = "ok"
    WEAK = "weak"
    FAIL = "FAIL"


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, what was found, and what to do if it is not good."""

    subject: str
    text: str
    mark: Mark = Mark.OK
    hint: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Say what this host can do for utility VMs, and why not; KVM and the jail are tried anew. "
        "Ends with 0 when a VM can boot, else with 6."
    )
    parser.set_defaults(run=_run)


def _run(_args: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be text
    found = _windows() if sys.platform == "win32" else _linux()
    for finding in found:
        print(f"{finding.mark:<4}  {finding.subject:<12} {finding.text}")
        if finding.hint:
            print(f"      {'':<12} hint: {finding.hint}")
    return EXIT_CODES[Kind.UNSUPPORTED] if any(finding.mark is Mark.FAIL for finding in found) else 0


def _windows() -> list[Finding]:
    from utilityvm.cli.doctor_windows import findings

    version = ".".join(map(str, sys.version_info[:3]))
    build = 0
    if sys.platform == "win32":
        build = sys.getwindowsversion().build
    return [Finding("utilityvm", f"{__version__}, Python {version}"), *findings(build)]


def _linux() -> list[Finding]:
    found = [
        _python(),
        _tool("setpriv", "util-linux", "ends QEMU with its owner"),
        _tool("unshare", "util-linux", "gives the jail its namespaces", needed=False),
        _tool("bwrap", "bubblewrap", "gives the jail its files", needed=False),
        _tool("skopeo", "skopeo", "pulls images", needed=False),
        _memory(),
    ]
    files = _boot_files(Layout.of_user().boot_files)
    if isinstance(files, Finding):
        found += [files, Finding("qemu", "not tried: the probe boots the kernel of the boot files", mark=Mark.FAIL)]
    else:
        found += [Finding("boot files", f"{files.folder}: kernel {files.manifest.kernel.release}"), *_qemu(files.vmlinux)]
    return found


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("utilityvm", f"{__version__}, Python {version}, uid {os.geteuid()}")


def _tool(name: str, package: str, purpose: str, *, needed: bool = True) -> Finding:
    if path := shutil.which(name):
        return Finding(name, f"{path}: {purpose}")
    return Finding(name, "not found", Mark.FAIL if needed else Mark.WEAK, hint=f"install the package {package}")


def _memory() -> Finding:
    _, available = total_and_available(MEMINFO.read_text())
    return Finding("host", f"{len(os.sched_getaffinity(0))} processors, {available >> 20} MiB of memory available")


def _boot_files(folder: Path) -> BootFiles | Finding:
    return _tried("boot files", lambda: load(folder, digests=True))


def _qemu(kernel: Path) -> list[Finding]:
    facts = _tried("qemu", lambda: asyncio.run(QemuService().probe(kernel, anew=True)))
    if isinstance(facts, Finding):
        return [facts]
    emulated = facts.accel is Accel.TCG
    slow = "software emulation is correct, slower, and not a security boundary" if emulated else ""
    return [
        Finding("qemu", f"{facts.qemu}, version {'.'.join(map(str, facts.version))}"),
        Finding("acceleration", f"{facts.accel.value}: {facts.reason}", Mark.WEAK if emulated else Mark.OK, hint=slow),
        *_jail(facts.jail),
    ]


def _jail(jail: Jail) -> list[Finding]:
    held = Finding("jail", ", ".join(jail.layers))
    if not jail.lacks:
        return [held]
    *others, last = (Finding("jail", f"without {layer}: {reason}", Mark.WEAK) for layer, reason in jail.lacks.items())
    return [held, *others, replace(last, hint=hint(jail))]


def _tried(subject: str, look: Callable[[], T]) -> T | Finding:
    try:
        return look()
    except UtilityVMError as error:
        return Finding(subject, error.message, mark=Mark.FAIL, hint=error.hint)
