import json
from subprocess import list2cmdline  # noqa: TID251 (the same rules, written by others)

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilityvm.kit.errors import GuestError, InvalidOptions, ProtocolError
from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame
from utilityvm.wire.oci import Box, Capabilities, OciProcess, Rlimit, User, windows_command_line


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
    settings = gcs.execute_settings(gcs.ProcessParameters(command_args=["true"]), gcs.StdioPorts(), windows=False)
    sent = json.loads(gcs.encode_request(gcs.ExecuteRequest(settings=settings)))
    assert sent["Settings"] == {"ProcessParameters": '{"CommandArgs":["true"]}', "VsockStdioRelaySettings": {}}


@pytest.mark.parametrize("body", [{"ProcessId": -5}, {"ProcessId": 1 << 32}, {"Result": 1 << 32}, {"Result": -(1 << 31) - 1}])
def test_a_number_that_the_protocol_does_not_have_is_refused(body: object) -> None:
    with pytest.raises(ProtocolError, match="unmarshal failed"):
        gcs.decode_response(gcs.EXECUTE, answer(body))


# -- what is written ----------------------------------------------------------------------------------------------------


def test_json_is_written_as_the_original_writes_it() -> None:
    assert gcs.encode_json({"b": "<&>\u2028", "a": ["\b\f\n\x01é", None]}) == (
        '{"a":["\\u0008\\u000c\\n\\u0001é",null],"b":"\\u003c\\u0026\\u003e\\u2028"}'
    )


def test_text_that_is_not_utf_8_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(InvalidOptions, match=r"^'a\\udcff' is not UTF-8, which text for a guest must be$"):
        gcs.encode_json({"a": "a\udcff"})


def test_a_signal_without_a_number_has_no_member() -> None:
    kill = gcs.SignalRequest(process_id=1)
    assert b"Options" not in gcs.encode_request(kill)
    assert b'"Options":{}' in gcs.encode_request(gcs.SignalRequest(process_id=1, options=gcs.SignalOptions()))
    assert b'"Options":{"Signal":"CtrlC"}' in gcs.encode_request(gcs.SignalRequest(process_id=1, options=gcs.SignalOptions(signal="CtrlC")))


def test_guests_of_windows_know_ports_as_services() -> None:
    settings = gcs.execute_settings(gcs.ProcessParameters(), gcs.StdioPorts(std_out=0x4000_000A), windows=True)
    assert json.loads(gcs.encode_json(settings)) == {
        "ProcessParameters": "{}",
        "StdioRelaySettings": {"StdOut": "4000000a-facb-11e6-bd58-64006a7986d3"},
    }


# -- OCI processes ------------------------------------------------------------------------------------------------------

STREAMS = {"stdin": True, "stdout": True, "stderr": False}
PROCESS = OciProcess(
    terminal=True,
    console_size=Box(height=25, width=132),
    user=User(uid=0, gid=0, username="ann"),
    args=["a", "b c"],
    env=["A=1", "B=", "C", "D=x=y", "=z"],
    cwd="/w",
)


def test_a_container_of_a_linux_guest_is_told_the_whole_process() -> None:
    parameters = gcs.parameters_of(PROCESS, windows=False, whole=True, **STREAMS)
    assert parameters == gcs.ProcessParameters(create_std_in_pipe=True, create_std_out_pipe=True, oci_process=PROCESS)


@pytest.mark.parametrize("windows", [False, True])
def test_others_are_told_its_parts(*, windows: bool) -> None:
    parameters = gcs.parameters_of(PROCESS, windows=windows, whole=False, **STREAMS)
    assert (parameters.command_line, parameters.command_args) == (('a "b c"', []) if windows else ("", ["a", "b c"]))
    assert parameters.environment == {"A": "1", "D": "x=y", "": "z"}
    assert (parameters.user, parameters.working_directory, parameters.console_size) == ("ann", "/w", [25, 132])
    assert (parameters.emulate_console, parameters.create_std_err_pipe) == (True, False)


def test_a_command_line_outranks_arguments() -> None:
    process = msgspec.structs.replace(PROCESS, command_line="cmd /c x", console_size=None)
    parameters = gcs.parameters_of(process, windows=False, whole=False, **STREAMS)
    assert (parameters.command_line, parameters.command_args, parameters.console_size) == ("cmd /c x", [], [])


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], ""),
        (["a", "b"], "a b"),
        ([""], '""'),
        (["a b", "\t"], '"a b" "\t"'),
        (['say "x"'], '"say \\"x\\""'),
        (['"'], '\\"'),
        (["c:\\d\\"], "c:\\d\\"),
        (["c:\\d e\\"], '"c:\\d e\\\\"'),
        (['\\\\"'], '\\\\\\\\\\"'),
    ],
)
def test_arguments_become_a_command_line_that_windows_splits_again(args: list[str], line: str) -> None:
    assert windows_command_line(args) == line
    assert line == list2cmdline(args)


def split(line: str) -> list[str]:
    """What a program on Windows makes of its command line: the rules of Microsoft's C runtime, but for the first word's."""
    words, word, started, quoted, at = [], "", False, False, 0
    while at < len(line):
        slashes = len(line[at:]) - len(line[at:].lstrip("\\"))
        at += slashes
        letter = line[at : at + 1]
        if letter == '"':
            word, started = word + "\\" * (slashes // 2), True
            if slashes % 2:
                word += '"'
            else:
                quoted = not quoted
        elif letter in {" ", "\t"} and not quoted:
            word += "\\" * slashes
            if word or started:
                words.append(word)
            word, started = "", False
        else:
            word += "\\" * slashes + letter
        at += 1
    return [*words, word] if word or started else words


@given(st.lists(st.text(st.sampled_from('ab \t"\\'), max_size=6), max_size=4))
def test_what_windows_makes_of_a_command_line_is_the_arguments_again(args: list[str]) -> None:
    assert split(windows_command_line(args)) == args
    assert windows_command_line(args) == list2cmdline(args)


def test_everything_of_an_oci_process_is_written_in_the_specifications_order() -> None:
    process = OciProcess(
        terminal=True,
        console_size=Box(height=1, width=2),
        user=User(uid=1, gid=2, umask=18, additional_gids=[3], username="u"),
        args=["a"],
        command_line="c",
        env=["e=f"],
        cwd="/",
        capabilities=Capabilities(bounding=["CAP_KILL"], ambient=["CAP_CHOWN"]),
        rlimits=[Rlimit(type="RLIMIT_NOFILE", hard=2**64 - 1, soft=1)],
        no_new_privileges=True,
        apparmor_profile="p",
        oom_score_adj=0,
        selinux_label="l",
    )
    assert gcs.encode_json(process) == (
        '{"terminal":true,"consoleSize":{"height":1,"width":2},"user":{"uid":1,"gid":2,"umask":18,"additionalGids":[3],"username":"u"},'
        '"args":["a"],"commandLine":"c","env":["e=f"],"cwd":"/","capabilities":{"bounding":["CAP_KILL"],"ambient":["CAP_CHOWN"]},'
        '"rlimits":[{"type":"RLIMIT_NOFILE","hard":18446744073709551615,"soft":1}],"noNewPrivileges":true,"apparmorProfile":"p",'
        '"oomScoreAdj":0,"selinuxLabel":"l"}'
    )
    assert gcs.encode_json(OciProcess(user=User(uid=0, gid=0), cwd="")) == '{"user":{"uid":0,"gid":0},"cwd":""}'
