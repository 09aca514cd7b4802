"""Run a folder of vectors and say, file by file, how many passed, failed or deviated, and what was not compared and why."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.parity.compare import Verdict, compare
from tests.parity.gcs import GcsVector
from tests.parity.operations import OperationsVector
from tests.parity.structs import StructVector
from tests.parity.vectors import Item, Malformed, UnusableFolderError, Vector, read_folder

VECTORS = Path(__file__).parent / "vectors"
SHOWN = 3


@dataclass
class Tally:
    """The counts of one file."""

    passed: int = 0
    failures: list[Verdict] = field(default_factory=list)
    deviations: Counter[str] = field(default_factory=Counter)
    not_compared: Counter[str] = field(default_factory=Counter)

    def add(self, item: Item) -> None:
        """Run one vector and count it."""
        match item:
            case Malformed(name=name, reason=reason):
                verdict = Verdict(name, [f"unusable vector: {reason}"])
            case _:
                verdict = _compare(item)
        self.not_compared.update(verdict.not_compared)
        if verdict.differences:
            self.failures.append(verdict)
        else:
            self.passed += 1
            self.deviations.update(verdict.deviations)

    def __str__(self) -> str:
        text = f"{self.passed} passed, {len(self.failures)} failed, {self.deviations.total()} deviations{_by(self.deviations)}"
        return text + "".join(f"; not compared: {count} ({reason})" for reason, count in sorted(self.not_compared.items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the vectors; return 0 when all that ran passed, 1 on a failure, 2 for a folder that is of no use."""
    parser = argparse.ArgumentParser(prog="parity", description="Compare with the original's recorded behaviour.")
    parser.add_argument("--vectors", type=Path, default=VECTORS, metavar="DIR", help="folder of vector files (default: the repository's)")
    try:
        files = read_folder(parser.parse_args(arguments).vectors)
    except UnusableFolderError as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    failed = False
    for name, items in files.items():
        tally = Tally()
        for item in items:
            tally.add(item)
        print(f"{name}: {tally}")
        for verdict in tally.failures[:SHOWN]:
            print("\n".join(f"  {verdict.name}: {difference}" for difference in verdict.differences))
        failed = failed or bool(tally.failures)
    return 1 if failed else 0


def _compare(vector: Vector | GcsVector | StructVector | OperationsVector) -> Verdict:
    try:
        return compare(vector)
    except Exception as error:  # noqa: BLE001  whatever one vector raises, the others are still run and counted
        return Verdict(vector.name, [f"raised {type(error).__name__}: {error}"])


def _by(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{name}: {count}' for name, count in counts.items())})" if counts else ""
