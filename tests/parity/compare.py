"""One vector against our side: the differences, the deviations that applied, and what could not be compared yet."""

import difflib
import json
from dataclasses import asdict, dataclass, field

from tests.parity import gcs, operations
from tests.parity.deviations import expectation
from tests.parity.gcs import GcsVector
from tests.parity.gcs_deviations import gcs_expectation
from tests.parity.operations import OperationsVector
from tests.parity.operations_deviations import operations_expectation
from tests.parity.structs import StructVector, encoded
from tests.parity.subject import Observed, run
from tests.parity.vectors import Vector

DIFF_LINES = 24
OUTPUT_HANDLER = "default log receivers (ours is an argument of create)"


@dataclass
class Verdict:
    """How one vector fared; it passed when there is no difference."""

    name: str
    differences: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    def expect(self, what: str, expected: object, ours: object) -> None:
        """Note a difference between two values, if there is one."""
        if expected != ours:
            self.differences.append(f"{what}\n{_diff(expected, ours)}")


def compare(vector: Vector | GcsVector | StructVector | OperationsVector) -> Verdict:
    """Run a vector and compare everything that it states."""
    match vector:
        case GcsVector():
            return _compare_steps(vector)
        case OperationsVector():
            return _compare_operations(vector)
        case StructVector():
            return _compare_struct(vector)
        case Vector():
            return _compare_document(vector)


def _compare_struct(vector: StructVector) -> Verdict:
    verdict, (written, read) = Verdict(vector.name), encoded(vector)
    expected = bytes(vector.json).decode()
    verdict.expect("JSON", expected, written)
    verdict.expect("values that were read and written again", json.loads(expected), json.loads(read))
    return verdict


def _compare_steps(vector: GcsVector) -> Verdict:
    verdict, ours = Verdict(vector.name), gcs.run(vector)
    wanted, verdict.deviations = gcs_expectation(vector)
    for number, (step, theirs, mine) in enumerate(zip(vector.steps, wanted, ours, strict=True)):
        where = f"step {number}, {step.call}"
        verdict.expect(f"{where}: result", theirs.result, mine.result)
        verdict.expect(f"{where}: error", theirs.error, mine.error)
        verdict.expect(f"{where}: frames", [asdict(frame) for frame in theirs.frames], [asdict(frame) for frame in mine.frames])
        verdict.expect(f"{where}: ports", theirs.listened, mine.listened)
    return verdict


def _compare_operations(vector: OperationsVector) -> Verdict:
    verdict, ours = Verdict(vector.name), operations.run(vector)
    wanted, verdict.deviations = operations_expectation(vector)
    for number, (step, theirs, mine) in enumerate(zip(vector.steps, wanted, ours, strict=True)):
        where = f"step {number}, {step.op}"
        verdict.expect(f"{where}: result", theirs.result, mine.result)
        verdict.expect(f"{where}: error", theirs.error, mine.error)
        verdict.expect(f"{where}: calls", theirs.calls, mine.calls)
        verdict.expect(f"{where}: frames", [asdict(frame) for frame in theirs.frames], [asdict(frame) for frame in mine.frames])
    return verdict


def _compare_document(vector: Vector) -> Verdict:
    verdict, ours = Verdict(vector.name), run(vector.input)
    expected, verdict.deviations = expectation(vector)
    if expected.document is not None:
        verdict.expect("document", expected.document, ours.document)
    verdict.expect("state of the VM", expected.vm, ours.vm)
    _compare_error(vector.expect.error_prefix, expected.error, ours, verdict)
    verdict.expect("verify", expected.verify, ours.verify)
    verdict.expect("warnings", vector.expect_warnings, ours.warnings)
    for name in ("options", "memory_mb", "processor_count"):
        verdict.expect(name, getattr(vector.expect, name), ours.result.get(name))
    if vector.expect.has_output_handler is not None:
        verdict.not_compared.append(OUTPUT_HANDLER)
    verdict.expect("effects", vector.expect_effects, ours.effects)
    return verdict


def _compare_error(prefix: str | None, expected: str | None, ours: Observed, verdict: Verdict) -> None:
    if prefix is None:
        verdict.expect("error", expected, ours.error)
    elif not (ours.error or "").startswith(prefix):
        verdict.expect("error's beginning", prefix, ours.error)


def _diff(expected: object, ours: object) -> str:
    lines = list(difflib.unified_diff(_lines(expected), _lines(ours), "original", "ours", lineterm="", n=1))
    if not lines:  # the same values, spelled with other bytes
        lines = [f"- {expected}", f"+ {ours}"]
    more = [f"({len(lines) - DIFF_LINES} more lines)"] if len(lines) > DIFF_LINES else []
    return "\n".join(f"    {line}" for line in [*lines[:DIFF_LINES], *more])


def _lines(value: object) -> list[str]:
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, str):
        return [value]
    return json.dumps(value, indent=1, ensure_ascii=False).splitlines()
