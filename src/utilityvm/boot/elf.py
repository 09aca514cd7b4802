"""Just enough of ELF to look into 64-bit little-endian files: the machine, a section, the shared libraries needed. Pure."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from utilityvm.kit.errors import Corrupt, Unsupported

X86_64 = 62
"""`e_machine` of x86-64 (System V ABI, AMD64 supplement)."""

_MACHINES = {3: "i386", 40: "arm", X86_64: "x86_64", 183: "aarch64", 243: "riscv"}

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")

_MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
_SHT_DYNAMIC = 6
_PT_INTERP = 3
_DT_NEEDED = 1


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    link: int
    data: bytes


def check_machine(head: bytes, what: str) -> None:
    """Check that `head`, the first bytes of the file `what`, begins an ELF file for x86-64.

    Raises:
        Corrupt: it is not an ELF file.
        Unsupported: it is for another architecture.
    """
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        raise Corrupt(f"{what}: not an ELF file")
    machine = int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")
    if machine != X86_64 or not head.startswith(_MAGIC_64_LITTLE):
        raise Unsupported(f"{what}: is for {_MACHINES.get(machine, f'ELF machine {machine}')}, only x86_64 is supported")


def interpreter(data: bytes) -> str:
    """Return the dynamic loader that the program asks for, ``""`` for a static one.

    Raises:
        Corrupt: the file is cut off.
    """
    try:
        _, _, _, _, _, table, _, _, _, size, count, *_ = _HEADER.unpack_from(data)
        rows = [_PROGRAM.unpack_from(data, table + index * size) for index in range(count)]
    except struct.error as error:
        raise Corrupt("object: its ELF program table lies outside of it") from error
    return next((data[row[2] : row[2] + row[5]].rstrip(b"\0").decode() for row in rows if row[0] == _PT_INTERP), "")


def section(data: bytes, name: str) -> bytes:
    """Return the content of the first section called `name`, empty when there is none."""
    return next((found.data for found in _sections(data) if found.name == name), b"")


def needed(data: bytes) -> tuple[str, ...]:
    """Return the names of the shared libraries that the program or library links to (DT_NEEDED), in order."""
    sections = list(_sections(data))
    dynamic = next((found for found in sections if found.kind == _SHT_DYNAMIC), None)
    if dynamic is None:
        return ()
    strings = sections[dynamic.link].data
    return tuple(_string(strings, value) for tag, value in _DYNAMIC.iter_unpack(dynamic.data) if tag == _DT_NEEDED)


def _sections(data: bytes) -> Iterator[_Section]:
    check_machine(data[:20], "object")
    try:
        *_, table, _, _, _, _, size, count, names = _HEADER.unpack_from(data)
        rows = [_SECTION.unpack_from(data, table + index * size) for index in range(count)]
    except struct.error as error:
        raise Corrupt("object: its ELF section table lies outside of it") from error
    strings = data[rows[names][4] : rows[names][4] + rows[names][5]] if rows else b""
    for name, kind, _, _, offset, length, link, *_ in rows:
        yield _Section(_string(strings, name), kind, link, data[offset : offset + length])


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
