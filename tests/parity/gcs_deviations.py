"""The deviations on the guest connection: when a bug shows (a predicate on the guest and the calls), and what is expected instead."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.parity.gcs import GcsVector, Outcome, expected
from tests.parity.gcs_guest import Seen
from utilityvm.kit.errors import GuestError, ProtocolError
from utilityvm.wire import gcs
from utilityvm.wire.frames import HEADER, Frame

UNREADABLE = "bridge response unmarshal failed: "


@dataclass(frozen=True)
class GcsDeviation:
    """One bug: `shows` in a vector's guest and calls, and `ours` instead of what the original did in each step."""

    shows: Callable[[GcsVector], bool]
    ours: Callable[[list[Outcome], GcsVector], list[Outcome]]


def gcs_expectation(vector: GcsVector) -> tuple[list[Outcome], list[str]]:
    """Return what is expected of each step, and the ids of the deviations that changed it."""
    steps, changed = expected(vector), []
    for name, deviation in GCS_DEVIATIONS.items():
        if deviation.shows(vector):
            steps = deviation.ours(steps, vector)
            changed.append(name)
    return steps, changed


def _capabilities(vector: GcsVector) -> dict[str, object]:
    answer = json.loads(vector.guest.answer("NegotiateProtocol", 0) or "{}")
    return dict(answer.get("Capabilities") or {})


def _created_again(vector: GcsVector) -> Iterator[tuple[int, str]]:
    """Give the steps that create a container whose creation has failed before, and what the guest answers when it is asked."""
    created, failed = set[str](), set[str]()
    asks = bool(_capabilities(vector).get("SendHostCreateMessage"))
    creates = sum(asks and step.call == "Connect" and step.args["cold_start"] for step in vector.steps)
    for number, step in enumerate(vector.steps):
        if step.call != "CreateContainer" or step.args["id"] in created:
            continue
        answer = vector.guest.answer("Create", creates) or vector.guest.default_response
        creates += 1
        if step.args["id"] in failed:
            yield number, answer
        refused = json.loads(answer).get("Result", 0) != 0
        (failed if refused else created).add(step.args["id"])


def _create_again(steps: list[Outcome], vector: GcsVector) -> list[Outcome]:
    """The guest is asked again, by the same frame under the next id; all later ids are one higher each time."""
    again, ours, ids = dict(_created_again(vector)), list[Outcome](), 0
    for number, (step, outcome) in enumerate(zip(vector.steps, steps, strict=True)):
        added = sum(earlier < number for earlier in again)
        if number in again:
            (first,) = [frame for other in ours for frame in other.frames if _creates(frame, step.args["id"])][:1]
            answer = json.loads(again[number])
            refusal = f"guest RPC failure: {answer['ErrorMessage']}" if answer.get("Result", 0) else None
            system = str(_capabilities(vector).get("RuntimeOsType") or "windows").lower()
            result = None if refusal else {"is_oci": system == "linux", "os": system}
            response = Seen("guest->host", gcs.response_type(first.type), ids, HEADER.size + len(again[number].encode()), again[number])
            ours.append(Outcome(result, refusal, [replace(first, id=ids), response]))
        else:
            ours.append(replace(outcome, frames=[_later(frame, added) for frame in outcome.frames]))
        ids = max([ids, *(frame.id + 1 for frame in ours[-1].frames if frame.dir == "host->guest")])
    return ours


def _creates(frame: Seen, container_id: str) -> bool:
    return frame.type == gcs.CREATE.word and json.loads(frame.payload)["ContainerId"] == container_id


def _later(frame: Seen, by: int) -> Seen:
    return frame if frame.type == gcs.NOTIFICATION_WORD else replace(frame, id=frame.id + by)


def _our_words(name: str, body: str) -> str | None:
    """Return what we say of an answer to the call of that name, None when it can be read."""
    call = next(call for call in gcs.CALLS if call.name == name)
    try:
        gcs.decode_response(call, Frame(gcs.response_type(call.word), 0, body.encode()))
    except ProtocolError as error:
        return error.message
    except GuestError:
        pass
    return None


def _is_unreadable(vector: GcsVector) -> bool:
    return any(_our_words(key.partition("#")[0], body) for key, body in vector.guest.responses.items())


def _in_our_words(steps: list[Outcome], vector: GcsVector) -> list[Outcome]:
    words = [said for key, body in vector.guest.responses.items() if (said := _our_words(key.partition("#")[0], body))]
    (ours,) = words  # a vector breaks one answer: the bridge does not live to see another
    return [replace(step, error=ours) if (step.error or "").startswith(UNREADABLE) else step for step in steps]


GCS_DEVIATIONS = {
    "bug-30": GcsDeviation(lambda vector: any(True for _ in _created_again(vector)), _create_again),
    "json-words": GcsDeviation(_is_unreadable, _in_our_words),
}
