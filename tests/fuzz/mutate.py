"""Changes to inputs: blind ones of bits, bytes and ranges, and ones that know where records begin and what their fields are."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

LONGEST: Final = 1024
"""Bytes of an input."""

_EDGES: Final = (0, 1, 2, 3, 15, 16, 17, 43, 44, 45, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x1_0001, 0x8_0000, 0x8_0001)
_WIDE: Final = (*_EDGES, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x1_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Form:
    """How an input is made of records: `size` tells the length of the record that begins with these bytes, `fields` are (offset, size)."""

    size: Callable[[memoryview], int]
    fields: tuple[tuple[int, int], ...] = ()


@final
class Mutator:
    """Makes inputs of inputs, the same from the same seed."""

    def __init__(self, seed: int, form: Form) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (no secrets)
        self._form = form
        self._blind = (self._flip, self._byte, self._integer, self._cut_out, self._repeat, self._shorten, self._splice)
        self._knowing = (self._field, self._lie, self._drop, self._double, self._move, self._graft)

    def change(self, data: bytes, corpus: Sequence[bytes]) -> bytes:
        """Return `data` after a few changes, in which parts of other inputs of `corpus` may come in."""
        out, chance = bytearray(data), self.chance.random
        for _ in range(1 + int(chance() * chance() * 6)):
            if not out:
                out += self._other(corpus)
            kinds = self._knowing if self._form.fields and chance() < 0.6 else self._blind
            kinds[int(chance() * len(kinds))](out, corpus)
        del out[LONGEST:]
        return bytes(out)

    def below(self, limit: int) -> int:
        """Return a number from 0 up to, and without, `limit`."""
        return int(self.chance.random() * limit)

    def _other(self, corpus: Sequence[bytes]) -> bytes:
        return corpus[self.below(len(corpus))]

    def _range(self, out: bytearray) -> slice:
        start = self.below(len(out))
        return slice(start, start + 1 + self.below(min(64, len(out) - start)))

    def _records(self, out: bytearray) -> list[slice]:
        found: list[slice] = []
        at = 0
        with memoryview(out) as view:
            while at < len(out) and len(found) < 32:
                end = at + max(1, self._form.size(view[at:]))
                found.append(slice(at, end))
                at = end
        return found

    def _record(self, out: bytearray) -> slice:
        records = self._records(out)
        return records[self.below(len(records))]

    # -- blind ------------------------------------------------------------------------------------------------------

    def _flip(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        out[self.below(len(out))] ^= 1 << self.below(8)

    def _byte(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        out[self.below(len(out))] = self.below(256)

    def _integer(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        size = (1, 2, 4, 8)[self.below(4)]
        self._put(out, self.below(len(out)), size)

    def _put(self, out: bytearray, at: int, size: int) -> None:
        value = _WIDE[self.below(len(_WIDE))] & (1 << 8 * size) - 1
        out[at : at + size] = value.to_bytes(size, "little")

    def _cut_out(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        del out[self._range(out)]

    def _repeat(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        part = self._range(out)
        out[part.start : part.start] = out[part] * (1 + self.below(5))

    def _shorten(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        del out[self.below(len(out)) :]

    def _splice(self, out: bytearray, corpus: Sequence[bytes]) -> None:
        other = self._other(corpus)
        out[self.below(len(out)) :] = other[self.below(len(other) + 1) :]

    # -- knowing ----------------------------------------------------------------------------------------------------

    def _field(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        offset, size = self._form.fields[self.below(len(self._form.fields))]
        self._put(out, self._record(out).start + offset, size)

    def _lie(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        """Make a field a little larger or smaller, as a length or a count would be."""
        offset, size = self._form.fields[self.below(len(self._form.fields))]
        at = self._record(out).start + offset
        value = int.from_bytes(out[at : at + size], "little") + self.below(9) - 4
        out[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def _drop(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        del out[self._record(out)]

    def _double(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        part = self._record(out)
        out[part.start : part.start] = out[part]

    def _move(self, out: bytearray, _corpus: Sequence[bytes]) -> None:
        part, target = self._record(out), self._record(out)
        moved = out[part]
        del out[part]
        out[min(target.start, len(out)) : min(target.start, len(out))] = moved

    def _graft(self, out: bytearray, corpus: Sequence[bytes]) -> None:
        other = bytearray(self._other(corpus))
        if other:
            at = self._record(out).start
            out[at:at] = other[self._record(other)]
