"""The mutation loop. Inputs that show something new join the corpus; those that crash are saved, and tests read them ever after."""

import hashlib
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from .mutate import Mutator
from .targets import Target

CRASHERS: Final = Path(__file__).parent / "corpus"
"""A folder for each target; a file's name begins with the digest of its bytes."""

MOST_KEPT: Final = 2000
LONGEST_KEPT: Final = 600  # longer ones are slow, and show little that is new


@dataclass(slots=True)
class Found:
    """What came of a hunt."""

    inputs: int = 0
    seconds: float = 0.0
    corpus: list[bytes] = field(default_factory=list)
    crashes: list[tuple[bytes, str]] = field(default_factory=list)


def known(name: str) -> list[bytes]:
    """Return the inputs that once crashed a target."""
    return [path.read_bytes() for path in sorted((CRASHERS / name).glob("*.bin"))]


def save(name: str, data: bytes) -> Path:
    """Keep an input that crashed a target."""
    path = CRASHERS / name / f"{hashlib.sha256(data).hexdigest()[:16]}.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def hunt(target: Target, count: int, seed: int, *, most_crashes: int = 5) -> Found:
    """Check `count` inputs made of the target's seeds; the same seed makes the same inputs. Stops after a few crashes."""
    mutator = Mutator(seed, target.form)
    found = Found(corpus=[*target.seeds, *known(target.name)])
    seen, first = set[Hashable](), len(found.corpus)
    began = time.process_time()
    for number in range(count):
        base = found.corpus[number if number < first else mutator.below(len(found.corpus))]
        data = base if number < first else mutator.change(base, found.corpus)
        found.inputs += 1
        try:
            shown = target.check(data, mutator.chance)
        except Exception as error:  # noqa: BLE001 (whatever is not documented is a crash)
            found.crashes.append((data, f"{type(error).__name__}: {error}"))
            if len(found.crashes) >= most_crashes:
                break
            continue
        if shown not in seen and 0 < len(data) <= LONGEST_KEPT and len(found.corpus) < MOST_KEPT:
            seen.add(shown)
            found.corpus.append(data)
    found.seconds = time.process_time() - began
    return found


def replay(target: Target, data: bytes) -> None:
    """Check an input under several fates of its reader."""
    for seed in range(20):
        target.check(data, Random(seed))  # noqa: S311
