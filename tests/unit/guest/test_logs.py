"""The guest's log lines as records of ours, whatever the guest sends."""

import io
import json
import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.guest.logs import MAX_LINE, MAX_SKEW, LineReader, record

NOW = 1_767_319_445.678901
TIME = "2026-01-02T02:04:05.678901234Z"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a quarter of a second after `TIME`."""
    monkeypatch.setattr(time, "time", lambda: NOW + 0.25)
    monkeypatch.setattr(time, "time_ns", lambda: int((NOW + 0.25) * 1e9))


def of(**members: object) -> logging.LogRecord:
    return record(json.dumps(members).encode(), "v7")


def attributes(entry: logging.LogRecord) -> dict[str, object]:
    return {name: entry.__dict__[name] for name in ("vm_id", "vm_time", "received", "created")}


@pytest.mark.usefixtures("now")
def test_a_line_is_a_record_with_the_vms_id_and_the_guests_time() -> None:
    entry = of(time=TIME, level="warning", msg="hot", degrees=90.0, fan="off")
    assert (entry.name, entry.levelno) == ("utilityvm.guest", logging.WARNING)
    assert entry.getMessage() == f"hot degrees=90 fan=off uvm-id=v7 vm.time={TIME}"
    assert entry.__dict__["fields"] == {"degrees": 90, "fan": "off", "uvm-id": "v7", "vm.time": TIME}
    assert attributes(entry) == {"vm_id": "v7", "vm_time": NOW, "received": NOW + 0.25, "created": NOW}
    assert logging.Formatter("%(asctime)s").format(entry).endswith(",678")


@pytest.mark.usefixtures("now")
@pytest.mark.parametrize(
    ("said", "vm_time"),
    [
        ("1970-01-01T00:00:07Z", 7.0),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139.0),
        ("0001-01-01T00:00:00+23:59", -62_135_683_140.0),
        ("2026-01-03T02:04:07Z", NOW + MAX_SKEW + 1.321099),
        ("2026-01-02T02:04:05", None),  # of no time zone
        ("yesterday", None),
        ("", None),
        ("9" * 1000, None),
        (12345, None),
        ([TIME], None),
        (None, None),
    ],
)
def test_a_time_that_is_none_or_far_from_ours_does_not_date_the_record(said: object, vm_time: float | None) -> None:
    entry = of(time=said, msg="x")
    assert attributes(entry) == {"vm_id": "v7", "vm_time": pytest.approx(vm_time), "received": NOW + 0.25, "created": NOW + 0.25}
    assert logging.Formatter("%(asctime)s").format(entry)


@pytest.mark.parametrize(
    ("level", "ours"),
    [
        ("trace", logging.DEBUG),
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("warn", logging.WARNING),
        ("warning", logging.WARNING),
        ("error", logging.ERROR),
        ("fatal", logging.ERROR),
        ("panic", logging.ERROR),
        ("loud", logging.INFO),
        (3, logging.INFO),
    ],
)
def test_levels(level: object, ours: int) -> None:
    assert of(level=level, msg="x").levelno == ours


def test_a_line_without_level_is_information() -> None:
    assert of(msg="x").levelno == logging.INFO


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"panic: no more", "panic: no more"),
        (b'{"msg":"cut he', '{"msg":"cut he'),
        (b'["a list"]', '["a list"]'),
        (b"null", "null"),
        (b"\xff\xfe\x00", "\ufffd\ufffd\\x00"),
        (b"[" * MAX_LINE, "[" * MAX_LINE),
        (b'{"a":' + b"9" * 5000 + b"}", '{"a":' + "9" * 5000 + "}"),
    ],
    ids=["text", "cut", "list", "null", "no UTF-8", "too deep", "too large a number"],
)
def test_a_broken_line_is_an_error_with_its_text(line: bytes, text: str) -> None:
    entry = record(line, "v7")
    assert (entry.levelno, entry.getMessage()) == (logging.ERROR, f"{text} uvm-id=v7 vm.time=")
    assert entry.__dict__["vm_id"] == "v7"


def test_invalid_utf_8_inside_a_string_costs_those_bytes_only() -> None:
    entry = record(b'{"msg":"a\xffb","level":"debug"}', "v7")
    assert (entry.levelno, entry.getMessage()) == (logging.DEBUG, "a\ufffdb uvm-id=v7 vm.time=")


def test_nothing_that_the_guest_says_steers_a_terminal_or_begins_a_line() -> None:
    evil = "\x1b[2J\r\n\x9b31m\u202e\u2028\ud800\x00"
    entry = of(**{"msg": evil, "time": evil, "level": evil, evil: evil, "nested": {evil: [evil]}, "uvm-id": evil})
    assert entry.getMessage().isprintable()
    assert all(str(word).isprintable() for pair in entry.__dict__["fields"].items() for word in pair)
    assert entry.getMessage().startswith(r"\x1b[2J\r\n\x9b31m\u202e\u2028\ud800\x00 ")
    assert entry.getMessage().count("uvm-id=v7") == 1


def test_percent_signs_are_only_percent_signs() -> None:
    assert of(msg="100%s %d").getMessage() == "100%s %d uvm-id=v7 vm.time="


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(), lambda of: st.dictionaries(st.text(), of)).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_whatever_the_guest_sends_can_be_formatted_and_written(line: bytes) -> None:
    handler = logging.StreamHandler(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(msecs)d %(relativeCreated)d %(levelname)s %(message)s"))
    text = handler.format(record(line, "v7"))
    handler.stream.write(text)
    assert text.isprintable()


# -- lines --------------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")), max_size=10), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut(lines: list[bytes], size: int) -> None:
    reader, whole = LineReader(), b"\n".join(lines)
    found = [line for at in range(0, len(whole), size) for line in reader.feed(whole[at : at + size])]
    assert [*found, reader.rest()] == [*filter(None, whole.split(b"\n")[:-1]), whole.split(b"\n")[-1]]


@pytest.mark.parametrize("size", [1000, MAX_LINE, 3 * MAX_LINE])
def test_a_line_without_end_arrives_in_pieces_and_is_never_held(size: int) -> None:
    reader, length = LineReader(), 3 * MAX_LINE + 5
    found: list[bytes] = []
    for at in range(0, length, size):
        found += reader.feed(b"x" * min(size, length - at))
        assert len(reader.rest()) < MAX_LINE
    found += reader.feed(b"\nnext\n")
    assert list(map(len, found)) == [MAX_LINE, MAX_LINE, MAX_LINE, 5, 4]
