"""Just enough of ELF to look into 64-bit little-endian files, and to leave parts of them out. Pure."""

import struct
from collections.abc import Collection, Iterator, Mapping

import msgspec

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
_SHT_VERNEED, _SHT_VERSYM = 0x6FFFFFFE, 0x6FFFFFFF
_PT_INTERP = 3
_DT_NEEDED, _DT_VERNEED, _DT_VERNEEDNUM = 1, 0x6FFFFFFE, 0x6FFFFFFF

_LIBRARY = struct.Struct("<HHIII")  # of the libraries with versions: version, how many, its name, where they begin, where the next is
_VERSION = struct.Struct("<IHHII")  # hash, flags, its number, name, where the next is
_NEXT_AT = 12  # in the first of these
_NUMBER, _UNVERSIONED = struct.Struct("<H"), 1
_BINDING_AT, _WEAK = 4, 2 << 4  # in a symbol


class _Section(msgspec.Struct, frozen=True):
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


def without_library(data: bytes, name: str) -> bytes:
    """Return the program without the shared library `name` that it links to; what it would have of that is at address 0.

    It must not call any of it. A program that does not link to the library is returned as it is.

    Raises:
        Unsupported: the library's symbols have no versions, by which to know them, or no other library's have; or as `section`.
        Corrupt: as `section`.
    """
    if name not in needed(data):
        return data
    made, rows = bytearray(data), _rows(data)
    by_kind = {row[1]: row for row in rows}
    try:
        numbers, changes = _forget_versions(made, rows, by_kind.get(_SHT_VERNEED, (0,) * 8), name)
        _make_weak(made, rows, by_kind[_SHT_VERSYM], numbers)
        _forget_needed(made, rows, by_kind[_SHT_DYNAMIC], name, changes)
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise Corrupt("object: a table of its libraries is of nothing that it has") from error
    return bytes(made)


def _forget_versions(made: bytearray, rows: list[tuple[int, ...]], table: tuple[int, ...], name: str) -> tuple[set[int], Mapping[int, int]]:
    """Take the library out of the list of those with versions.

    Return the numbers of its versions, and what is to be added to entries of the dynamic section.
    """
    strings, begin, listed = rows[table[6]][4], table[4], table[7]
    before, at, following = begin, begin, 0
    for _ in range(listed):
        _, count, file, first, following = _LIBRARY.unpack_from(made, at)
        if _string(made, strings + file) == name:
            break
        before, at = at, at + following
    else:
        raise Unsupported(f"object: cannot be without {name}: symbols that have no versions are nobody's")
    numbers, place = set[int](), at + first
    for _ in range(count):
        _, _, number, _, step = _VERSION.unpack_from(made, place)
        numbers.add(number)
        place += step
    if listed == 1:
        raise Unsupported(f"object: cannot be without {name}: no other library of it has versions")
    if at == begin:
        return numbers, {_DT_VERNEED: following, _DT_VERNEEDNUM: -1}
    _NAME.pack_into(made, before + _NEXT_AT, at - before + following if following else 0)
    return numbers, {_DT_VERNEEDNUM: -1}


def _make_weak(made: bytearray, rows: list[tuple[int, ...]], table: tuple[int, ...], numbers: set[int]) -> None:
    """Let symbols of the versions `numbers` have none, and be found nowhere without that being an error."""
    begin, length, symbols = table[4], table[5], rows[table[6]][4]
    for index in range(length // _NUMBER.size):
        if _NUMBER.unpack_from(made, begin + index * _NUMBER.size)[0] in numbers:
            _NUMBER.pack_into(made, begin + index * _NUMBER.size, _UNVERSIONED)
            at = symbols + index * _SYMBOL_SIZE + _BINDING_AT
            made[at] = _WEAK | (made[at] & 0xF)


def _forget_needed(made: bytearray, rows: list[tuple[int, ...]], table: tuple[int, ...], name: str, changes: Mapping[int, int]) -> None:
    begin, length, strings = table[4], table[5], rows[table[6]][4]
    kept = bytearray()
    for tag, value in _DYNAMIC.iter_unpack(made[begin : begin + length]):
        if tag != _DT_NEEDED or _string(made, strings + value) != name:
            kept += _DYNAMIC.pack(tag, value + changes.get(tag, 0))
    made[begin : begin + length] = kept.ljust(length, b"\0")


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


def _string(table: bytes | bytearray, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()
