"""The programs and commands of docs/how-to/debugging.md run as they are printed, and the page's table is the code's."""

import json
import os
import re
import shlex
import subprocess  # noqa: TID251 (on a terminal of its reader)
import sys
from pathlib import Path

import pytest

from utilityvm.boot.files import BootFiles
from utilityvm.kit.otel import ORIGINAL_NAMES
from utilityvm.kit.proc import run_tool

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "debugging.md").read_text()
SECONDS = 120


def block(heading: str, language: str) -> str:
    """The first block of code in a language below a heading."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE.partition(f"## {heading}\n")[2], re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def output(program: str, tmp_path: Path) -> str:
    path = tmp_path / "program.py"
    path.write_text(program)
    return run_tool([sys.executable, path], within=SECONDS)


@pytest.mark.usefixtures("boot_files")
def test_the_program_that_shows_records(tmp_path: Path) -> None:
    said = output(block("See what happens", "python"), tmp_path)
    assert re.search(r"^guest \S+ \d+\.\d+ -?\d+\.\d+ \{.*'uvm-id': .*\} bridge negotiated uvm-id=", said, re.MULTILINE)
    assert re.search(r"^event vm\.start\.done \{'vm': .*, 'us': \d+\}$", said, re.MULTILINE)


def test_the_timeline(boot_files: BootFiles, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = f"cd {tmp_path} && {block('See where the time goes', 'sh').strip()} 2>&1"
    said = run_tool(["sh", "-c", command], within=SECONDS, env={"PATH": path})
    shown, drawn = (text[text.index("timeline of ") :].splitlines() for text in (block("See where the time goes", "text"), said))
    assert [row[:22] for row in drawn[1:]] == [row[:22] for row in shown[1:]]
    names = {span["name"] for span in json.loads((tmp_path / "spans.json").read_text())}
    assert {"vm.create", "vm.start", "boot.kernel", "process.run", "vm.close"} <= names
    assert boot_files.folder.exists()


@pytest.mark.usefixtures("boot_files")
def test_the_program_that_exports_to_opentelemetry(tmp_path: Path) -> None:
    said = output(block("Export to OpenTelemetry", "python"), tmp_path)
    exported = set(re.findall(r'^    "name": "([^"]+)"', said, re.MULTILINE))
    assert {"request", "uvm::CreateLCOW", "hcs::System::Start", "boot.kernel", "gcs::Process::waitBackground", "uvm::Close"} <= exported
    assert len(set(re.findall(r'"trace_id": "(0x\w+)"', said))) == 1


def test_a_launch_is_replayed_by_hand(boot_files: BootFiles) -> None:
    script = block("Replay a launch by hand", "sh")
    assert script.startswith("B=/var/lib/utilityvm/boot ")
    script = script.replace("/var/lib/utilityvm/boot", shlex.quote(str(boot_files.folder)), 1)
    said = ""
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec timeout {SECONDS} sh -c {shlex.quote(script)}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as qemu:
        assert qemu.stdin
        assert qemu.stdout
        while "/ # " not in said and (some := os.read(qemu.stdout.fileno(), 4096)):
            said += some.decode(errors="replace")
        qemu.stdin.write(b"echo sum $((40+2)); poweroff -f\n")
        qemu.stdin.flush()
        said = qemu.stdout.read().decode(errors="replace")
    assert "sum 42" in said
    assert qemu.returncode == 0


def test_the_table_of_names_is_the_codes() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w:]+)` \|$", PAGE, re.MULTILINE)
    assert dict(rows) == ORIGINAL_NAMES
    assert len(rows) == len(ORIGINAL_NAMES)
