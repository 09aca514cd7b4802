"""Just enough of ELF to look into 64-bit little-endian files: the machine, a section, the shared libraries needed. Pure."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from utilityvm.kit.errors import Corrupt, Unsupported

X86_64 = 62
"""`e_machine` of x86-64 (System V ABI, AMD64 supplement)."""

_MACHINES = {3: "i386", 40: "arm", X86_64: "x86_64", 183: "aarch64", 243: "riscv"}

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_LENGTH, _LENGTH_AT = struct.Struct("<Q"), 32  # sh_size in a row of sections
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<qQ")

_RELOCATION, _KIND, _KIND_AT = struct.Struct("<QIIq"), struct.Struct("<I"), 8  # offset, kind, symbol, addend
_NAME, _SYMBOL_SIZE = struct.Struct("<I"), 24
_CALLED = {2, 4}  # R_X86_64_PC32, R_X86_64_PLT32
_CALL, _NOTHING = b"\xe8", bytes.fromhex("0f1f440000")  # call, and the one instruction of five bytes that does nothing

_MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
_SHT_RELA = 4
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


def emptied(data: bytes, names: Collection[str]) -> bytes:
    """Return an object in which the sections with these names, and what relocates them, have no content; all else is where it was.

    Raises:
        Corrupt, Unsupported: as `section`.
    """
    made, (table, size, _) = bytearray(data), _table(data)
    for index, found in enumerate(_sections(data)):
        if found.name.removeprefix(".rela") in names:
            _LENGTH.pack_into(made, table + index * size + _LENGTH_AT, 0)
    return bytes(made)


def without_calls(data: bytes, callee: str) -> bytes:
    """Return an object file for x86-64 in which each call of the undefined symbol `callee` does nothing, in as many bytes.

    Raises:
        Corrupt, Unsupported: as `section`.
    """
    made = bytearray(data)
    try:
        for place, at in _calls(data, callee):
            made[at - 1 : at + 4] = _NOTHING
            _KIND.pack_into(made, place + _KIND_AT, 0)
    except (struct.error, IndexError, ValueError) as error:
        raise Corrupt("object: a relocation of it is of nothing that it has") from error
    return bytes(made)


def _calls(data: bytes, callee: str) -> Iterator[tuple[int, int]]:
    """Find the relocations of calls of `callee`: where they are, and where the address that they change is."""
    rows = _rows(data)
    for _, kind, _, _, begin, length, link, info, *_ in rows:
        if kind != _SHT_RELA:
            continue
        symbols, code = rows[link], rows[info]
        strings = rows[symbols[6]][4]
        for place in range(begin, begin + length, _RELOCATION.size):
            offset, sort, symbol, _ = _RELOCATION.unpack_from(data, place)
            (name,) = _NAME.unpack_from(data, symbols[4] + symbol * _SYMBOL_SIZE)
            at = code[4] + offset
            if sort in _CALLED and _string(data, strings + name) == callee and data[at - 1 : at] == _CALL:
                yield place, at


def needed(data: bytes) -> tuple[str, ...]:
    """Return the names of the shared libraries that the program or library links to (DT_NEEDED), in order."""
    sections = list(_sections(data))
    dynamic = next((found for found in sections if found.kind == _SHT_DYNAMIC), None)
    if dynamic is None:
        return ()
    strings = sections[dynamic.link].data
    return tuple(_string(strings, value) for tag, value in _DYNAMIC.iter_unpack(dynamic.data) if tag == _DT_NEEDED)


def _table(data: bytes) -> tuple[int, int, int]:
    """Return where the table of sections begins, and the size and number of its rows."""
    check_machine(data[:20], "object")
    try:
        *_, table, _, _, _, _, size, count, _ = _HEADER.unpack_from(data)
    except struct.error as error:
        raise Corrupt("object: its ELF header is cut off") from error
    return table, size, count


def _rows(data: bytes) -> list[tuple[int, ...]]:
    table, size, count = _table(data)
    try:
        return [_SECTION.unpack_from(data, table + index * size) for index in range(count)]
    except struct.error as error:
        raise Corrupt("object: its ELF section table lies outside of it") from error


def _sections(data: bytes) -> Iterator[_Section]:
    rows, names = _rows(data), _HEADER.unpack_from(data)[-1]
    strings = data[rows[names][4] : rows[names][4] + rows[names][5]] if rows else b""
    for name, kind, _, _, offset, length, link, *_ in rows:
        yield _Section(_string(strings, name), kind, link, data[offset : offset + length])


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
