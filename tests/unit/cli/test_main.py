"""The command line without a VM: exit codes, messages, flags."""

import argparse
import io
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from utilityvm import __version__
from utilityvm.cli import boot, doctor
from utilityvm.cli.flags import add_option_flags, given_options, wanted_options
from utilityvm.cli.main import main
from utilityvm.guest.logs import record
from utilityvm.guest.spec import ProcessSpec
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
from utilityvm.kit.proc import run_tool
from utilityvm.options.declare import Option, declared
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.vm.processes import DEFAULT_ENVIRONMENT

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


INTERRUPTED_WHILE_IT_THINKS = """
import os, signal, sys
from utilityvm.cli import {verb}
from utilityvm.cli.main import main
def add_arguments(parser):
    os.kill(os.getpid(), signal.SIGINT)
    parser.set_defaults(run=lambda args: 0)
{verb}.add_arguments = add_arguments
sys.exit(main(["{verb}"]))
"""


@pytest.mark.parametrize("verb", ["boot", "options"])
def test_an_interrupt_before_there_is_anything_to_tidy_up_ends_it_by_that_signal(verb: str) -> None:
    """As Python's KeyboardInterrupt it would crash msgspec, which takes types apart at that time."""
    script = INTERRUPTED_WHILE_IT_THINKS.format(verb=verb)
    with pytest.raises(HostError, match=r"(?s)ended with -2(?!.*Traceback)"):
        run_tool([sys.executable, "-c", script], within=30)


def test_an_interrupt_that_somebody_ignores_stays_ignored() -> None:
    script = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + INTERRUPTED_WHILE_IT_THINKS
    assert run_tool([sys.executable, "-c", script.format(verb="boot")], within=30) == ""


def test_a_caller_of_main_keeps_its_own_way_with_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "_run", lambda _args: int(signal.getsignal(signal.SIGINT) is signal.default_int_handler))
    assert main(["boot"]) == 1
    assert main(["options", "lcow"]) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["--version", "--help", "options lcow", "document lcow"])
def test_output_that_cannot_be_written_is_one_line(words: str, unbuffered: str) -> None:
    script = f"{sys.executable} -m utilityvm {words} > /dev/full; echo $?"
    said = run_tool(["sh", "-c", f"({script}) 2>&1"], within=30, env={"PYTHONUNBUFFERED": unbuffered})
    assert said == "uvm: output cannot be written: No space left on device\n1\n"


@pytest.mark.parametrize("words", ["boot --nonsense", "boot --id ? -- true"])
def test_a_failure_of_ours_that_cannot_be_told_is_still_not_the_programs(words: str) -> None:
    said = run_tool(["sh", "-fc", f"{sys.executable} -m utilityvm {words} 2> /dev/full; echo $?"], within=30)
    assert said == "125\n"


def test_an_interrupt_is_130_without_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_run", failing(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_run", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


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


@pytest.mark.parametrize("option", declared(OptionsLCOW).values(), ids=lambda option: option.name)
def test_every_option_that_one_word_can_give_has_its_flag(option: Option) -> None:
    if option.kind is TemplateConfig:
        with pytest.raises(SystemExit):
            parse(option.flag, "x")
    elif option.kind is bool:
        assert parse(option.flag) == {option.name: True}
        assert parse("--no-" + option.flag.removeprefix("--")) == {option.name: False}
    elif option.kind is int:
        assert parse(option.flag, "7") == {option.name: 7}
        assert parse(option.flag, "-7") == {option.name: -7}
        for word in option.words:
            assert parse(option.flag, word) == {option.name: word}
    elif option.kind is tuple:
        assert parse(option.flag, "word", option.flag, "other") == {option.name: ["word", "other"]}
    else:
        assert option.kind is str
        assert parse(option.flag, "word") == {option.name: "word"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--memory", "much"], "argument --memory/--memory-size-in-mb: 'much' is not a whole number of MiB"),
        (["--memory", "1.5"], "argument --memory/--memory-size-in-mb: '1.5' is not a whole number of MiB"),
        (["--memory"], "argument --memory/--memory-size-in-mb: expected one argument"),
        (["--memory", "1" * 5000], "argument --memory/--memory-size-in-mb: '1"),
        (["--kernel-direct=false"], "argument --kernel-direct/--no-kernel-direct: ignored explicit argument 'false'"),
        (["--preferred-root-fs-type", "x"], "argument --preferred-root-fs-type: invalid choice: 'x' (choose from initrd, vhd, or the"),
        (["--nonsense", "1"], "unrecognized arguments: --nonsense 1"),
        (["--memory", "-5"], "memory_size_in_mb must be between 1 and 18446744073709551614"),
        (["--cpus", "0"], "processor_count must be between 1 and 2147483647"),
        (["--cpus", "99999999999999999999"], "processor_count must be between 1 and 2147483647"),
        (["--preferred-root-fs-type", "7"], "preferred_root_fs_type must be between 0 and 1"),
        (["--id", "a\udcff"], "id 'a\\udcff' cannot name a VM"),
        (["--options", "/nowhere/vm.toml"], "uvm: /nowhere/vm.toml: no such options file"),
        (["--options", ""], "uvm: --options: the file's name is empty"),
        (["--host-processors", "x"], "argument --host-processors: 'x' is not a number of 1 or more"),
        (["--host-processors", "0"], "argument --host-processors: '0' is not a number of 1 or more"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_a_value_that_makes_no_sense_is_one_clear_line(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["document", "lcow", *words]) in {2, 3}
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("usage: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert out == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--memry", "5m", "busybox"], "uvm run: error: unrecognized arguments: --memry (did you mean --memory?)"),
        (["run", "--ent", "sh", "busybox"], "uvm run: error: unrecognized arguments: --ent (did you mean --entrypoint?)"),
        (
            ["run", "--gpus", "all", "busybox"],
            "uvm run: error: unrecognized arguments: --gpus (a VM is given a device of the host by --assigned-devices)",
        ),
        (["boot", "--nonsense"], "uvm boot: error: unrecognized arguments: --nonsense"),
        (["boot-files", "show", "--x"], "uvm boot-files show: error: unrecognized arguments: --x"),
    ],
)
def test_a_flag_that_is_none_is_told_with_the_verbs_own_usage(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(words) == (125 if words[0] in {"run", "boot"} else 2)
    usage, *_, last = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: uvm {words[0]}")
    assert last == said


def test_boot_reads_the_file_and_its_flags_win(tmp_path: Path) -> None:
    (tmp_path / "vm.toml").write_text("memory_size_in_mb = 300\nprocessor_count = 1\n")
    parser = argparse.ArgumentParser()
    boot.add_arguments(parser)
    args = parser.parse_args(["--options", str(tmp_path / "vm.toml"), "--memory", "256", "--", "ls", "--options"])
    options = wanted_options(args)
    assert (options.memory_size_in_mb, options.processor_count) == (256, 1)


def test_a_boot_with_options_that_are_wrong_is_our_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "vm.toml"
    file.write_text("memory = 300\nprocessor_count = 0\n")
    assert main(["boot", "--options", str(file), "--", "true"]) == 125
    assert capsys.readouterr().err == (
        f"uvm: {file}: $.memory: is not an option; did you mean memory_size_in_mb? (and 1 more)\n"
        "uvm: $.processor_count: processor_count must be between 1 and 2147483647\n"
    )


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
    spec = asked(*words)
    assert (list(spec.argv) if spec else []) == command


def asked(*words: str, environment: Mapping[str, str] = MappingProxyType({})) -> ProcessSpec | None:
    """What `uvm boot` would run in a guest."""
    parser = argparse.ArgumentParser()
    boot.add_arguments(parser)
    return boot._spec(parser.parse_args(words), environment)


def test_without_flags_a_command_has_the_usual_surroundings() -> None:
    assert asked("ls") == ProcessSpec(argv=("ls",), env=tuple(DEFAULT_ENVIRONMENT.items()), cwd="/")


def test_a_command_has_the_variables_folder_user_and_terminal_of_the_flags() -> None:
    words = ["-t", "-e", "A=1=2", "--env", "MINE", "-e", "NOBODYS", "-e", "HOME=", "-w", "/tmp", "-u", "nobody:6", "ls"]
    spec = asked(*words, environment={"MINE": "x", "TERM": "vt220", "OTHER": "y"})
    assert spec is not None
    assert dict(spec.env) == {**DEFAULT_ENVIRONMENT, "TERM": "vt220", "A": "1=2", "MINE": "x", "HOME": ""}
    assert (spec.cwd, spec.user, spec.stdin, spec.console_size) == ("/tmp", "nobody:6", False, (24, 80))


def test_a_terminals_kind_is_passed_on_only_with_a_terminal_and_may_be_given() -> None:
    plain, given = asked("ls", environment={"TERM": "x"}), asked("-t", "-e", "TERM=y", "ls", environment={"TERM": "x"})
    assert plain is not None
    assert given is not None
    assert ("TERM" in dict(plain.env), dict(given.env)["TERM"]) == (False, "y")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--", "echo", "a\udcff"], r"argv\[1\]: 'a\\udcff' is not UTF-8"),
        (["-e", "=x", "ls"], "'' cannot name an environment variable"),
        (["-e", "", "ls"], "'' cannot name an environment variable"),
        (["-u", "\udcff", "ls"], "user: .* is not UTF-8"),
        (["--", ""], "the program's name is empty"),
        (["-i", "-e", "A=1"], "^-i, -e without a command: there is nothing to apply it to$"),
        (["-it", "ls"], "^-i with -t needs a terminal on standard input, and there is none$"),
    ],
)
def test_a_mistake_in_a_command_is_refused_before_anything_boots(monkeypatch: pytest.MonkeyPatch, words: list[str], says: str) -> None:
    monkeypatch.setattr("os.isatty", lambda _fd: False)
    with pytest.raises(InvalidOptions, match=says):
        asked(*words)


def test_a_command_without_a_guest_connection_is_refused_before_anything_boots(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boot", "--no-use-guest-connection", "--boot-files-path", "/nowhere", "ls"]) == 125
    assert "uvm: a command needs the guest connection, and use_guest_connection is false" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["0", "-1", "nan", "inf", "soon"])
def test_a_timeout_is_a_number_of_seconds(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["boot", "--timeout", word, "ls"]) == 125
    assert f"argument --timeout: '{word}' is not a positive number of seconds" in capsys.readouterr().err


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
    assert said.getvalue() == "uvm: warning: Changing it requested=1 assigned=2\nuvm: error: vm.output.failed vm=v error=no disk\n"


def test_a_line_of_the_guest_is_shown_as_the_guests(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(_args: argparse.Namespace) -> int:
        logging.getLogger("utilityvm.guest").handle(record(b'{"level":"error","message":"uvm: all is lost","msg":"x\\n","vm":"v8"}', "v7"))
        return 0

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(boot, "_run", run)
    assert main(["boot"]) == 0
    assert capsys.readouterr().err == "uvm: error: guest: x\\n message=uvm: all is lost vm=v8 uvm-id=v7 vm.time=\n"
