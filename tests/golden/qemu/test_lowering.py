"""Each folder is a decision: a document and host facts, and QEMU's command line (or the refusal). Those whose name begins
with `template` may be saved. `make golden` writes them anew."""

import os
from pathlib import Path

import msgspec
import pytest

from utilityvm.compute.qemu.facts import HostFacts
from utilityvm.compute.qemu.lower import lower
from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema import json
from utilityvm.schema.document import ComputeSystem

CASES = sorted(file.parent for file in Path(__file__).parent.glob("*/document.json"))
BLESS = os.environ.get("UVM_BLESS") == "1"


def test_there_are_cases() -> None:
    assert CASES


def lowered(case: Path) -> str:
    document = json.decode((case / "document.json").read_bytes(), ComputeSystem)
    facts = msgspec.json.decode((case / "facts.json").read_bytes(), type=HostFacts)
    try:
        launch = lower(VmId("golden"), document, facts, savable=case.name.startswith("template"))
    except (Unsupported, InvalidOptions) as error:
        return f"{type(error).__name__}: {error}\n"
    lines = [*map(str, launch.argv), "", f"memory: {launch.memory_bytes} bytes", f"console: {launch.console_path or '-'}"]
    lines += [f"share: quota {launch.share.quota}, weight {launch.share.weight}, group {launch.share.group or '-'}"] * launch.share.wanted
    lines += [f"plugs in: {request.resource_path}" for request in launch.present]
    lines += [f"gives: {address}" for address in launch.assigned.values()]
    return "\n".join([*lines, *(f"reads: {file}" for file in launch.files.values()), ""])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_command_line_of_this_document_is_this(case: Path) -> None:
    text = lowered(case)
    if BLESS:
        (case / "argv.txt").write_text(text)
    assert text == (case / "argv.txt").read_text()
