"""Each folder is a decision: what of the jail a host gives and what QEMU opens, and the chain of programs around it."""

import os
from pathlib import Path

import msgspec
import pytest

from utilityvm.compute.qemu.jail import FIRST_UID, Jail, enclosure, for_kvm, hint

CASES = sorted(file.parent for file in Path(__file__).parent.glob("*/case.json"))
BLESS = os.environ.get("UVM_BLESS") == "1"


class Device(msgspec.Struct):
    """/dev/kvm."""

    mode: int
    gid: int


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """What `enclosure` gets."""

    jail: Jail
    root: bool
    files: tuple[str, ...]
    devices: tuple[str, ...]
    gids: tuple[int, ...] = ()
    kvm: Device | None = None


def test_there_are_cases() -> None:
    assert CASES


def chain(case: Case) -> str:
    jail = for_kvm(case.jail, mode=case.kvm.mode, gid=case.kvm.gid) if case.kvm else case.jail
    around = enclosure(jail, FIRST_UID + 5, root=case.root, files=case.files, devices=case.devices, gids=case.gids)
    lacks = [f"lacks: {layer}: {reason}" for layer, reason in jail.lacks.items()]
    return "\n".join([*around.words(4711, ["QEMU"]), "", *lacks, f"hint: {hint(jail) or '-'}", ""])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_chain_of_programs_around_qemu_is_this(case: Path) -> None:
    text = chain(msgspec.json.decode((case / "case.json").read_bytes(), type=Case))
    if BLESS:
        (case / "argv.txt").write_text(text)
    assert text == (case / "argv.txt").read_text()
