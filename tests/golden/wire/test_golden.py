"""The vectors of protocol/golden, which the guest's codecs read as well. Their format is in protocol/golden/README.md."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from utilityvm.guest.client import read_properties
from utilityvm.kit.errors import GuestError, ProtocolError
from utilityvm.kit.text import printable
from utilityvm.schema.metrics import CgroupMetrics
from utilityvm.schema.properties import Properties
from utilityvm.wire import frames, gcs, packets
from utilityvm.wire.detached import ContainerPlace, ContainerPlaces, DetachedProcess, DetachedProcesses, Place
from utilityvm.wire.frames import Frame, FrameReader
from utilityvm.wire.packets import CONTROL, GUEST_CID, HOST_CID, STREAM, Control, Op, Packet, PacketReader

FOLDER: Final = Path(__file__).parents[3] / "protocol" / "golden"

REFUSALS: Final = {
    "payload-too-long": r"payload of \d+ bytes \(at most 65536\)",
    "wrong-cids": r"CIDs \d+ to \d+, expected",
    "unknown-type": r"unknown packet type",
    "unknown-op": r"unknown (stream|control) operation",
    "payload-of-wrong-size": r"operation \d+ of type \d+ with \d+ bytes of payload",
    "size": r"^invalid message size \d+$",
}
"""What our reader says for each reason of the vectors."""

CALLS: Final[dict[int, gcs.Call[Any, Any]]] = {call.word: call for call in gcs.CALLS}


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A packet, a frame, or the reason of a refusal."""

    type: int = 0
    op: int = 0
    src_port: int = 0
    dst_port: int = 0
    flags: int = 0
    buf_alloc: int = 0
    fwd_cnt: int = 0
    payload: str = ""
    id: int = 0
    body: str = ""
    error: str = ""

    def packet(self) -> Packet:
        op: Op | Control = Op(self.op) if self.type == STREAM else Control(self.op)
        return Packet(op, self.src_port, self.dst_port, unhex(self.payload), self.flags, self.buf_alloc, self.fwd_cnt)

    def frame(self) -> Frame:
        return Frame(self.type, self.id, unhex(self.body))


class Stream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes, and what a reader of them reports."""

    name: str
    hex: str
    events: list[Event]
    sender: str = msgspec.field(name="from", default="")

    @property
    def error(self) -> str:
        return self.events[-1].error if self.events else ""

    def cids(self) -> dict[str, int]:
        src, dst = (HOST_CID, GUEST_CID) if self.sender == "host" else (GUEST_CID, HOST_CID)
        return {"src_cid": src, "dst_cid": dst}


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request or response, and what it means."""

    name: str
    sender: str = msgspec.field(name="from")
    type: int
    body: str
    fields: dict[str, Any] | None = None
    error: str = ""
    written: bool = True


def unhex(text: str) -> bytes:
    """Read pieces of hexadecimal digits, each perhaps with a count."""
    pieces = (piece.partition("*") for piece in text.split())
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in pieces)


def load(file: str) -> list[Stream]:
    return msgspec.json.decode((FOLDER / file).read_bytes(), type=list[Stream])


def cuts(size: int) -> Iterable[int]:
    """Where to cut a stream: everywhere, or near its ends and now and then when it is long."""
    return (at for at in range(size + 1) if size < 8192 or at < 128 or size - at < 128 or at % 4093 == 0)


Feed = Callable[[bytes], Iterable[Packet] | Iterable[Frame]]


def read(feed: Feed, pieces: Iterable[bytes]) -> tuple[list[Packet | Frame], str]:
    """Return what was read of the pieces and why the rest was refused."""
    got: list[Packet | Frame] = []
    try:
        for piece in pieces:
            for item in feed(piece):
                got.append(item)  # noqa: PERF402  # those before a refusal count
    except ProtocolError as refusal:
        return got, str(refusal)
    return got, ""


def check(case: Stream, reader: Callable[[], Feed], want: list[Packet | Frame]) -> None:
    stream = unhex(case.hex)
    whole = read(reader(), [stream])
    assert whole[0] == want
    assert re.search(REFUSALS[case.error] if case.error else "^$", whole[1])
    assert read(reader(), (stream[at : at + 1] for at in range(len(stream)))) == whole
    for at in cuts(len(stream)):
        assert read(reader(), [stream[:at], stream[at:]]) == whole, f"cut at {at}"


PACKETS: Final = load("packets.json")
FRAMES: Final = load("frames.json")
MESSAGES: Final = msgspec.json.decode((FOLDER / "messages.json").read_bytes(), type=list[Message])


@pytest.mark.parametrize("case", PACKETS, ids=lambda case: case.name)
def test_packets_are_read_however_they_are_cut(case: Stream) -> None:
    want: list[Packet | Frame] = [event.packet() for event in case.events if not event.error]
    check(case, lambda: PacketReader(**case.cids()).feed, want)


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case.name)
def test_frames_are_read_however_they_are_cut(case: Stream) -> None:
    want: list[Packet | Frame] = [event.frame() for event in case.events if not event.error]
    check(case, lambda: FrameReader().feed, want)


@pytest.mark.parametrize("case", PACKETS, ids=lambda case: case.name)
def test_packets_are_written(case: Stream) -> None:
    written = b"".join(packets.encode(event.packet(), **case.cids()) for event in case.events if not event.error)
    check_written(case, written)


@pytest.mark.parametrize("case", FRAMES, ids=lambda case: case.name)
def test_frames_are_written(case: Stream) -> None:
    check_written(case, b"".join(frames.encode(event.frame()) for event in case.events if not event.error))


def check_written(case: Stream, written: bytes) -> None:
    """The events' bytes are the stream; a refused or unfinished rest, which no writer makes, may follow."""
    stream = unhex(case.hex)
    assert stream.startswith(written)
    if not case.error and "half" not in case.name:
        assert stream == written


@pytest.mark.parametrize("op", [*Op, *Control])
def test_every_operation_has_a_vector(op: Op | Control) -> None:
    kind = STREAM if isinstance(op, Op) else CONTROL
    assert any((event.type, event.op) == (kind, op.value) for case in PACKETS for event in case.events if not event.error)


def test_every_reason_for_a_refusal_has_a_vector() -> None:
    assert {case.error for case in PACKETS + FRAMES} == {*REFUSALS, ""}


def ports_of(fields: dict[str, Any]) -> gcs.StdioPorts:
    """The ports among the fields, which they leave."""
    return gcs.StdioPorts(**{name: fields.pop(name) for name in ("std_in", "std_out", "std_err") if name in fields})


def request(kind: int, fields: dict[str, Any]) -> gcs.Request:
    """The request that the fields of a vector describe."""
    fields = dict(fields)
    if kind == gcs.ATTACH.word:
        fields["stdio_ports"] = ports_of(fields)
    elif kind == gcs.EXECUTE.word:
        parameters = gcs.ProcessParameters(**fields.pop("parameters"))
        fields["settings"] = gcs.execute_settings(parameters, ports_of(fields), windows=False)
    elif kind == gcs.SIGNAL.word:
        fields["options"] = gcs.SignalOptions(signal=fields.pop("signal"), group=fields.pop("group", msgspec.UNSET))
    elif kind == gcs.PROPERTIES.word:
        fields["query"] = gcs.encode_query(fields.pop("property_types", ()))
    elif kind == gcs.MODIFY.word:
        fields["request"] = gcs.GuestRequest(**fields["request"])
    if "ocsc" in fields:
        fields["ocsc"] = gcs.SpanContext(**fields["ocsc"])
    built: gcs.Request = CALLS[kind].request(**fields)
    return built


def of(sender: str, *, refused: bool) -> list[Message]:
    found = [case for case in MESSAGES if case.sender == sender and bool(case.error) == refused]
    assert found
    return found


@pytest.mark.parametrize("case", [case for case in of("host", refused=False) if case.written], ids=lambda case: case.name)
def test_requests_are_written(case: Message) -> None:
    assert case.fields is not None
    assert gcs.encode_request(request(case.type, case.fields)).decode() == case.body


def response(case: Message) -> gcs.Response:
    call = CALLS[case.type - frames.RESPONSE + frames.REQUEST]
    assert gcs.response_type(call.word) == case.type
    answer = gcs.decode_response(call, Frame(case.type, 0, case.body.encode()))
    assert isinstance(answer, gcs.Response)
    return answer


def told(properties: Properties) -> dict[str, Any]:
    """What properties say, as the vectors name it."""
    fields: dict[str, Any] = {"process_list": [process.process_id for process in properties.process_list]}
    if properties.memory is not None and (memory := properties.memory.virtual_machine_memory) is not None:
        fields |= {"available_memory": memory.available_memory, "assigned_memory": memory.assigned_memory}
    if properties.metrics is not None:
        fields["metrics"] = properties.metrics
    return fields


def test_metrics_of_a_container_are_read_by_their_names() -> None:
    (case,) = [case for case in MESSAGES if case.name == "what a container has used"]
    answer = response(case)
    assert isinstance(answer, gcs.PropertiesResponse)
    metrics = read_properties(answer, "c").metrics
    assert metrics is not None
    assert metrics.pids is not None and metrics.cpu is not None and metrics.memory is not None and metrics.blkio is not None  # noqa: PT018
    assert metrics.cpu.usage is not None and metrics.memory.usage is not None and metrics.memory_oom_control is not None  # noqa: PT018
    assert (metrics.pids.current, metrics.cpu.usage.total, metrics.memory.rss, metrics.memory.total_rss) == (3, 30_000, 100, 100)
    assert (metrics.memory.usage.limit, metrics.memory.usage.failcnt, metrics.memory_oom_control.oom_kill) == (1000, 6, 1)
    assert [(entry.op, entry.major, entry.value) for entry in metrics.blkio.io_service_bytes_recursive] == [
        ("Read", 8, 10),
        ("Write", 8, 20),
    ]


def notifies(case: Message) -> bool:
    return case.type & frames.KIND_MASK == frames.NOTIFICATION


READ: Final = [case for case in of("guest", refused=False) if not notifies(case)]


@pytest.mark.parametrize("case", [case for case in READ if case.fields and case.fields["result"] == 0], ids=lambda case: case.name)
def test_successes_are_read(case: Message) -> None:
    assert case.fields is not None
    answer = response(case)
    if isinstance(answer, gcs.PropertiesResponse):
        want = {"process_list": [], **case.fields["properties"]}
        detached = gcs.decode_text(answer.properties, DetachedProcesses, "").detached_processes
        assert detached == [DetachedProcess(pid=one.pop("process_id"), **one) for one in want.pop("detached_processes", [])]
        if (place := want.pop("container_state", None)) is not None:
            assert gcs.decode_text(answer.properties, ContainerPlaces, "").container_state == ContainerPlace(
                **place | {"state": Place(place["state"]), "type": gcs.NotificationType(place["type"])}
            )
        if "metrics" in want:
            want["metrics"] = msgspec.convert(want["metrics"], CgroupMetrics)
        assert told(read_properties(answer, "c")) == want
        return
    fields = dict(case.fields)
    boot_times = fields.pop("boot_times", None)
    if "process_state" in fields:
        fields["process_state"] = gcs.ProcessState(**({"terminal": False, "ended": False, "exit_code": 0} | fields["process_state"]))
    assert {name: getattr(answer, name) for name in fields} == fields
    if isinstance(answer, gcs.NegotiateResponse):
        assert (list(msgspec.structs.astuple(answer.boot_times)) if answer.boot_times else None) == boot_times
        assert answer.capabilities == gcs.Capabilities(
            runtime_os_type="Linux",
            guest_defined=gcs.GuestDefinedCapabilities(
                namespace_add_request_supported=True,
                signal_process_supported=True,
                dump_stacks_supported=True,
                delete_container_state_supported=True,
                attach_process_supported=True,
            ),
        )


@pytest.mark.parametrize("case", [case for case in READ if case.fields and case.fields["result"] != 0], ids=lambda case: case.name)
def test_failures_are_read(case: Message) -> None:
    assert case.fields is not None
    with pytest.raises(GuestError) as caught:
        response(case)
    assert caught.value.result == case.fields["result"] % 2**32
    assert str(caught.value) == f"guest RPC failure: {printable(case.fields['error_message'])}"


@pytest.mark.parametrize("case", [case for case in of("guest", refused=False) if notifies(case)], ids=lambda case: case.name)
def test_notifications_are_read(case: Message) -> None:
    told = gcs.decode_notification(Frame(case.type, 0, case.body.encode()))
    assert msgspec.structs.asdict(told) == case.fields


@pytest.mark.parametrize("case", [case for case in of("guest", refused=True) if notifies(case)], ids=lambda case: case.name)
def test_notifications_that_cannot_be_read_are_refused(case: Message) -> None:
    with pytest.raises(ProtocolError, match="bridge received unknown notification message|bridge notification failed"):
        gcs.decode_notification(Frame(case.type, 0, case.body.encode()))


@pytest.mark.parametrize("case", [case for case in of("guest", refused=True) if not notifies(case)], ids=lambda case: case.name)
def test_responses_that_cannot_be_read_are_refused(case: Message) -> None:
    with pytest.raises(ProtocolError, match="bridge response unmarshal failed"):
        response(case)


def test_every_call_has_a_request_and_a_response() -> None:
    for call in CALLS.values():
        assert any(case.type == call.word for case in of("host", refused=False)), call.name
        assert any(case.type == gcs.response_type(call.word) for case in of("guest", refused=False)), call.name
