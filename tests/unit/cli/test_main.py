"""The command line without a VM: exit codes, messages, flags."""

import argparse
import io
import sys

import msgspec
import pytest

from utilityvm import __version__
from utilityvm.cli import boot, doctor
from utilityvm.cli.flags import add_option_flags, given_options
from utilityvm.cli.main import main
from utilityvm.kit.errors import (
    EXIT_CODES,
    ConnectionLost,
    Corrupt,
    DeadlineExceeded,
    Exhausted,
    Exists,
    GuestError,
    HostError,
    InvalidOptions,
    Kind,
    NotFound,
    Problem,
    ProtocolError,
    StateError,
    Unsupported,
    UtilityVMError,
)
from utilityvm.options.lcow import OptionsLCOW

ERRORS = (
    InvalidOptions("x"),
    NotFound("x"),
    Exists("x"),
    StateError("x", "y", "z"),
    Exhausted("x"),
    Unsupported("x"),
    HostError("x"),
    GuestError("x", call="c", result=5),
    ConnectionLost("x"),
    ProtocolError("x"),
    DeadlineExceeded("x"),
    Corrupt("x"),
)


def failing(error: BaseException) -> object:
    def run(_args: argparse.Namespace) -> int:
        raise error

    return run


# -- ends ---------------------------------------------------------------------------------------------------------------


def test_these_errors_are_of_every_kind() -> None:
    assert {error.kind for error in ERRORS} == set(Kind)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.kind.value)
def test_a_failure_has_the_code_of_its_kind_and_125_where_a_program_would_have_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: UtilityVMError
) -> None:
    error.hint = "try this"
    monkeypatch.setattr(doctor, "_run", failing(error))
    monkeypatch.setattr(boot, "_run", failing(error))
    assert main(["doctor"]) == EXIT_CODES[error.kind]
    assert capsys.readouterr() == ("", f"uvm: {error.message}\nuvm: hint: try this\n")
    assert main(["boot"]) == 125


def test_all_problems_of_the_options_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem("$.a", "rule", "first"), Problem("$.b", "rule", "second"), Problem("$.c", "rule", "third")]
    monkeypatch.setattr(boot, "_run", failing(InvalidOptions("options incorrect: first", problems=problems)))
    assert main(["boot"]) == 125
    assert capsys.readouterr().err == "uvm: options incorrect: first\nuvm: $.b: second\nuvm: $.c: third\n"


def test_an_interrupt_is_130_without_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_run", failing(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_run", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_no_output_at_all_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_run", lambda _args: 0)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["doctor"]) == 0


@pytest.mark.parametrize("words", [["--version"], ["-v", "--version"]])
def test_the_version(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr() == (f"uvm {__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["boot", "--help"], ["doctor", "-h"], ["boot-files", "build", "--help"]])
def test_help_is_no_failure(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: uvm")
    assert said.err == ""


# -- flags --------------------------------------------------------------------------------------------------------------


def parse(*words: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_option_flags(parser)
    return given_options(parser.parse_args(words))


def test_what_is_not_given_is_not_there() -> None:
    assert parse() == {}


@pytest.mark.parametrize("field", msgspec.structs.fields(OptionsLCOW), ids=lambda field: field.name)
def test_every_option_that_one_word_can_give_has_its_flag(field: msgspec.structs.FieldInfo) -> None:
    flag = "--" + field.name.replace("_", "-")
    if field.default is None:
        assert field.name == "template_config", "an option with a structure cannot be given as a flag"
        return
    if isinstance(field.default, bool):
        assert parse(flag) == {field.name: True}
        assert parse("--no-" + flag.removeprefix("--")) == {field.name: False}
    elif isinstance(field.default, int):
        assert parse(flag, "7") == {field.name: 7}
    else:
        assert parse(flag, "word") == {field.name: "word"}


def test_memory_and_processors_have_short_names() -> None:
    assert parse("--memory", "256", "--cpus", "1") == {"memory_size_in_mb": 256, "processor_count": 1}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--", "ls", "-l"], ["ls", "-l"]),
        (["ls", "-l", "--", "--help"], ["ls", "-l", "--", "--help"]),
        (["--memory", "9", "--", "--", "x"], ["--", "x"]),
        ([], []),
    ],
)
def test_words_after_the_program_are_the_programs(words: list[str], command: list[str]) -> None:
    parser = argparse.ArgumentParser()
    boot.add_arguments(parser)
    assert list(boot._command(parser.parse_args(words).command)) == command


def test_a_word_that_is_not_text_is_refused_before_anything_boots() -> None:
    with pytest.raises(InvalidOptions, match=r"^'a\\udcff' is not UTF-8"):
        boot._command(["--", "echo", "a\udcff"])


# -- what it says -------------------------------------------------------------------------------------------------------


def test_doctor_marks_what_fails_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["doctor"]) == EXIT_CODES[Kind.UNSUPPORTED]
    out = capsys.readouterr().out
    assert "FAIL  setpriv      not found\n                   hint: install the package util-linux\n" in out
    assert "ok    host         " in out


def test_a_warning_reads_as_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own state: `main` sets the log up for the whole process."""
    import logging

    from utilityvm.cli.main import _configure_logging
    from utilityvm.kit.trace import event

    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    root, ours = logging.getLogger(), logging.getLogger("utilityvm")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(ours, "level", ours.level)
    _configure_logging(0)
    event("plan.adjusted", level=logging.WARNING, vm="v", message="Changing it", requested=1, assigned=2)
    event("vm.output.failed", level=logging.ERROR, vm="v", error="no disk")
    event("vm.exit", vm="v")
    logging.getLogger("qemu.qmp.protocol").error("Task.Reader: EOFError")
    assert said.getvalue() == "uvm: warning: Changing it requested=1 assigned=2\nuvm: error: vm.output.failed vm=v error=no disk\n"
