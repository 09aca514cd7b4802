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
