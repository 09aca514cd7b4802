"""The original's bugs that show in operations on a running VM; ids and reasons are in deviations.toml."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.parity.gcs import Outcome
from tests.parity.gcs_guest import Seen
from tests.parity.operations import MODIFY, SAVE, OperationsVector, OperationVector, expected
from tests.parity.scsi_model import BUGS, numbered, replayed

MIB = 1 << 20
_DUMP = re.compile(r"^(failed to remove (?:plan9|vsmb) share .*? from \S+: )&\{.*\}: ", re.DOTALL)


@dataclass(frozen=True)
class OperationDeviation:
    """One bug: `shows` in a vector's operations, and `ours` instead of what the original did in each step."""

    shows: Callable[[OperationsVector], bool]
    ours: Callable[[list[Outcome], OperationsVector], list[Outcome]]


def operations_expectation(vector: OperationsVector) -> tuple[list[Outcome], list[str]]:
    """Return what is expected of each step, and the ids of the deviations that changed it."""
    steps, changed = expected(vector), []
    for name, deviation in OPERATION_DEVIATIONS.items():
        if deviation.shows(vector):
            steps = deviation.ours(steps, vector)
            changed.append(name)
    return steps, changed


def scsi_bugs() -> frozenset[str]:
    """Return the bugs of disks that are declared."""
    return BUGS & OPERATION_DEVIATIONS.keys()


def _scsi(bug: str) -> OperationDeviation:
    """A bug of the table of disks: it shows where the table without it does otherwise. We do what the table without all of them does."""

    def shows(vector: OperationsVector) -> bool:
        return replayed(vector, scsi_bugs()) != replayed(vector, scsi_bugs() - {bug})

    def ours(steps: list[Outcome], vector: OperationsVector) -> list[Outcome]:
        theirs, fixed = replayed(vector, frozenset()), replayed(vector, scsi_bugs())
        changed = {number for number in fixed if theirs[number] != fixed[number] and _same(steps[number], theirs[number])}
        return numbered([fixed[number] if number in changed else step for number, step in enumerate(steps)])

    return OperationDeviation(shows, ours)


def _same(recorded: Outcome, model: Outcome) -> bool:
    """Whether the model gives what was recorded, but for the numbers of frames: only then it may say what we do instead."""
    return replace(recorded, frames=[replace(frame, id=0) for frame in recorded.frames]) == model


def _is_uneven(step: OperationVector) -> bool:
    return bool(step.op == "UpdateMemory" and step.args["size_in_bytes"] % MIB)


def _round_up(outcome: Outcome, step: OperationVector) -> Outcome:
    if not _is_uneven(step):
        return outcome
    mebibytes = step.args["size_in_bytes"] // MIB + 1
    call = {"ResourcePath": "VirtualMachine/ComputeTopology/Memory/SizeInMB", "Settings": mebibytes + mebibytes % 2}
    return replace(outcome, calls=[f"{MODIFY} {json.dumps(call, separators=(',', ':'))}"])


def _truncates(vector: OperationsVector) -> bool:
    steps = zip(vector.steps, expected(vector), strict=True)
    return any(_round_up(outcome, step) != outcome for step, outcome in steps)


def _rounded(steps: list[Outcome], vector: OperationsVector) -> list[Outcome]:
    return [_round_up(outcome, step) for outcome, step in zip(steps, vector.steps, strict=True)]


def _removes_root(step: OperationVector, vector: OperationsVector) -> bool:
    options = vector.input["options"]
    root = options.get("PreferredRootFSType") == 1 and options["RootFSFile"]
    return bool(step.op == "RemoveVPMEM" and step.args["host_path"] == root)


def _root_stays(steps: list[Outcome], vector: OperationsVector) -> list[Outcome]:
    refused = Outcome(None, "not attached")
    return numbered([refused if _removes_root(step, vector) else outcome for outcome, step in zip(steps, vector.steps, strict=True)])


def _without_dump(steps: list[Outcome], _: OperationsVector) -> list[Outcome]:
    return [replace(step, error=step.error and _DUMP.sub(r"\1", step.error)) for step in steps]


def _saves(step: OperationVector, vector: OperationsVector) -> Outcome | None:
    """Return what we do where a VM is saved that was not made for it, None elsewhere."""
    options = vector.input["options"]
    if step.op != SAVE or options.get("IsTemplate"):
        return None
    return Outcome(None, f"vm {options['ID']}: was not created to become a template")


def _asked_for(steps: list[Outcome], vector: OperationsVector) -> list[Outcome]:
    return numbered([_saves(step, vector) or outcome for outcome, step in zip(steps, vector.steps, strict=True)])


def _resumed(steps: list[Outcome], vector: OperationsVector) -> list[Outcome]:
    return [
        replace(outcome, calls=[*outcome.calls, "HcsResumeComputeSystem"]) if _not_saved(step) else outcome
        for outcome, step in zip(steps, vector.steps, strict=True)
    ]


def _not_saved(step: OperationVector) -> bool:
    return step.op == SAVE and (step.error or "").startswith("error saving the VM: ")


def _texts(old: str, new: Callable[[OperationVector], str], op: str, kind: str) -> OperationDeviation:
    """A bug of what is said of network adapters: `old` in calls and requests of `op` where we say `new`."""

    def shown(text: str, step: OperationVector) -> str:
        return re.sub(old, new(step), text)

    def ours(steps: list[Outcome], vector: OperationsVector) -> list[Outcome]:
        return [
            replace(
                outcome,
                calls=[shown(call, step) for call in outcome.calls],
                frames=[_with_text(frame, shown(frame.payload, step)) for frame in outcome.frames],
            )
            if step.op == op and vector.input["kind"] == kind
            else outcome
            for outcome, step in zip(steps, vector.steps, strict=True)
        ]

    return OperationDeviation(lambda vector: ours(expected(vector), vector) != expected(vector), ours)


def _with_text(frame: Seen, text: str) -> Seen:
    return replace(frame, payload=text, size=frame.size + len(text) - len(frame.payload))


OPERATION_DEVIATIONS = {
    "bug-8": _scsi("bug-8"),
    "bug-9": _scsi("bug-9"),
    "bug-10": _scsi("bug-10"),
    "bug-11": _scsi("bug-11"),
    "bug-16": _texts('("RequestType":"Remove"),("Settings":{"Adapter)', lambda _: r'\1,"ResourceType":"Network",\2', "removeNIC", "wcow"),
    "bug-16b": _texts('("NamespaceID":"[^"]*","ID":)"[^"]*"', lambda step: rf'\1"{step.args["id"]}"', "removeNIC", "lcow"),
    "bug-17": _texts(',"IPAddress":"<nil>"', lambda _: "", "addNIC", "lcow"),
    "bug-23": OperationDeviation(_truncates, _rounded),
    "bug-24-removed": OperationDeviation(lambda vector: any(_removes_root(step, vector) for step in vector.steps), _root_stays),
    "share-dump": OperationDeviation(lambda vector: any(_DUMP.match(step.error or "") for step in vector.steps), _without_dump),
    "save-unasked": OperationDeviation(lambda vector: any(_saves(step, vector) for step in vector.steps), _asked_for),
    "save-undone": OperationDeviation(lambda vector: any(_not_saved(step) for step in vector.steps), _resumed),
}
