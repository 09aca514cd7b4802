import struct

import pytest

from tests.unit.boot import samples
from utilityvm.boot import elf
from utilityvm.kit.errors import Corrupt, Unsupported


def test_an_x86_64_file_is_accepted() -> None:
    elf.check_machine(samples.elf()[:20], "vmlinux")


def test_another_machine_is_named() -> None:
    with pytest.raises(Unsupported, match=r"^vmlinux: is for aarch64, only x86_64 is supported$"):
        elf.check_machine(samples.elf(machine=183)[:20], "vmlinux")


def test_an_unknown_machine_is_told_by_its_number() -> None:
    with pytest.raises(Unsupported, match="ELF machine 7"):
        elf.check_machine(samples.elf(machine=7)[:20], "vmlinux")


@pytest.mark.parametrize("head", [b"", b"\x7fELF", b"#!/bin/sh, and more of it"])
def test_what_is_no_elf_file_is_refused(head: bytes) -> None:
    with pytest.raises(Corrupt, match=r"^vmlinux: not an ELF file$"):
        elf.check_machine(head, "vmlinux")


def test_a_section_is_found_by_its_name() -> None:
    data = samples.elf({".modinfo": b"depends=", ".text": b"code"})
    assert elf.section(data, ".text") == b"code"
    assert elf.section(data, ".modinfo") == b"depends="
    assert elf.section(data, ".absent") == b""


def test_needed_libraries_come_in_order() -> None:
    assert elf.needed(samples.elf(needed=("libz.so.1", "libc.so.6"))) == ("libz.so.1", "libc.so.6")
    assert elf.needed(samples.elf()) == ()


def test_only_a_dynamic_program_has_a_loader() -> None:
    assert elf.interpreter(samples.elf(interpreter="/lib64/ld.so")) == "/lib64/ld.so"
    assert elf.interpreter(samples.elf()) == ""


def test_a_file_cut_anywhere_is_corrupt_or_incomplete_but_never_crashes() -> None:
    data = samples.elf({".modinfo": b"depends=a\0"}, needed=("libc.so.6",))
    for size in range(len(data)):
        with pytest.raises(Corrupt):
            elf.section(data[:size], ".modinfo")
        with pytest.raises(Corrupt):
            elf.needed(data[:size])


def test_a_cut_header_has_no_loader_to_tell() -> None:
    with pytest.raises(Corrupt):
        elf.interpreter(samples.elf()[:40])


def test_a_section_is_emptied_with_what_relocates_it_and_nothing_else_moves() -> None:
    data = samples.elf({".text": b"code", ".idle": b"0123", ".rela.idle": b"4567", ".idle.more": b"89"})
    found = elf.emptied(data, {".idle", ".absent"})
    assert [elf.section(found, name) for name in (".text", ".idle", ".rela.idle", ".idle.more")] == [b"code", b"", b"", b"89"]
    assert len(found) == len(data)


def test_calls_of_one_symbol_do_nothing_and_those_of_others_stay() -> None:
    call, nothing = b"\xe8\0\0\0\0", bytes.fromhex("0f1f440000")
    code = call + b"\x90" + call + call + call
    data = samples.calling(code, {1: ("trace", 4), 7: ("trace", 2), 12: ("other", 4), 17: ("trace", 1)})
    found = elf.without_calls(data, "trace")
    assert elf.section(found, ".text") == nothing + b"\x90" + nothing + call + call
    rows = struct.iter_unpack("<QIIq", elf.section(found, ".rela.text"))
    assert [(place, kind) for place, kind, _, _ in rows] == [(1, 0), (7, 0), (12, 4), (17, 1)]
    assert elf.without_calls(data, "absent") == data


def test_an_object_whose_tables_are_cut_off_is_refused() -> None:
    data = samples.calling(b"\xe8\0\0\0\0", {1: ("trace", 4)})
    wild = samples.calling(b"\xe8\0\0\0\0", {1: ("trace", 4)}).replace(struct.pack("<QII", 1, 4, 1), struct.pack("<QII", 1, 4, 1 << 30))
    for cut in (data[:70], data[:-64], wild):
        with pytest.raises(Corrupt):
            elf.without_calls(cut, "trace")
