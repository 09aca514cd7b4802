"""Guest kernels of a hundred bytes: they say a line on the serial port, do one thing, and need no boot files.

Each is an ELF file that QEMU boots directly (PVH: 32-bit, no paging), so that a driver's tests see a whole machine in a fraction of
the time that Linux takes.
"""

import struct
from enum import Enum

_BASE = 0x10_0000
_XEN_ELFNOTE_PHYS32_ENTRY = 18
_HALT = bytes.fromhex("fa f4 eb fd")  # cli; 1: hlt; jmp 1b
_SERIAL = bytes.fromhex("ba f8 03 00 00")  # mov edx, 0x3f8
_SAY = bytes.fromhex("ac 84 c0 74 03 ee eb f8")  # 1: lodsb; test al, al; jz 2f; out dx, al; jmp 1b; 2:


class Then(Enum):
    """What a kernel does after its line."""

    HANG = b""
    POWER_OFF = bytes.fromhex("66 ba 04 06 66 b8 00 20 66 ef")  # mov dx, 0x604; mov ax, 0x2000; out dx, ax  (q35's PM1 control: S5)
    RESET = bytes.fromhex("66 ba f9 0c b0 06 ee")  # mov dx, 0xcf9; mov al, 6; out dx, al  (reset control register)
    ECHO = bytes.fromhex("66 ba fd 03 ec a8 01 74 fb 66 ba f8 03 ec ee eb ef")
    """For ever: wait for a byte on the serial port and send it back."""


def kernel(line: str, then: Then) -> bytes:
    """Return the ELF file of a kernel that says `line` and goes on as `then`."""
    start = 52 + 2 * 32
    note = struct.pack("<III4sI", 4, 4, _XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", _BASE + start + 20)
    code = _SERIAL + _SAY + then.value + _HALT
    load_line = b"\xbe" + struct.pack("<I", _BASE + start + len(note) + 5 + len(code))  # mov esi, line
    image_size = start + len(note) + 5 + len(code) + len(line.encode()) + 1
    header = struct.pack("<4s5B7xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 1, 0, 0, 2, 3, 1, _BASE + start + 20, 52, 0, 0, 52, 32, 2, 0, 0, 0)
    load = struct.pack("<8I", 1, 0, _BASE, _BASE, image_size, image_size, 7, 4096)
    notes = struct.pack("<8I", 4, start, _BASE + start, _BASE + start, len(note), len(note), 4, 4)
    return header + load + notes + note + load_line + code + line.encode() + b"\0"
