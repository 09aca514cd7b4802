import json

import pytest

from utilityvm.kit.errors import GuestError, ProtocolError
from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame


def answer(body: object) -> Frame:
    return Frame(gcs.response_type(gcs.EXECUTE.word), 7, json.dumps(body).encode())


def test_a_response_has_its_requests_type_with_kind_two() -> None:
    assert gcs.response_type(0x10100501) == 0x20100501


def test_members_that_we_do_not_know_are_ignored() -> None:
    assert gcs.decode_response(gcs.EXECUTE, answer({"Result": 0, "ProcessId": 42, "Novelty": [1]})).process_id == 42


def test_a_failure_carries_the_guests_words_and_the_unsigned_hresult() -> None:
    with pytest.raises(GuestError, match="^guest RPC failure: no such file$") as caught:
        gcs.decode_response(gcs.EXECUTE, answer({"Result": -2147024894, "ErrorMessage": "no such file"}))
    assert (caught.value.result, caught.value.call) == (gcs.FILE_NOT_FOUND, "ExecuteProcess")


def test_a_failure_without_words_shows_its_hresult() -> None:
    with pytest.raises(GuestError, match="HRESULT 0x80004005"):
        gcs.decode_response(gcs.EXECUTE, answer({"Result": -2147467259}))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"Result":"0"}', b'{"ProcessId":1.5}', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_answer_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="bridge response unmarshal failed: ExecuteProcess"):
        gcs.decode_response(gcs.EXECUTE, Frame(0x20100501, 0, body))


def test_streams_that_are_not_wanted_have_no_port_on_the_wire() -> None:
    settings = gcs.ExecuteSettings(process_parameters=gcs.encode_parameters(gcs.ProcessParameters(command_args=["true"])))
    sent = json.loads(gcs.encode_request(gcs.ExecuteRequest(settings=settings)))
    assert sent["Settings"] == {"ProcessParameters": '{"CommandArgs":["true"]}', "VsockStdioRelaySettings": {}}


@pytest.mark.parametrize("body", [{"ProcessId": -5}, {"ProcessId": 1 << 32}, {"Result": 1 << 32}, {"Result": -(1 << 31) - 1}])
def test_a_number_that_the_protocol_does_not_have_is_refused(body: object) -> None:
    with pytest.raises(ProtocolError, match="unmarshal failed"):
        gcs.decode_response(gcs.EXECUTE, answer(body))
