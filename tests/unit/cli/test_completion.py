"""Completion scripts, run by the shells that they are for."""

import os
import pty
import select
import shutil
import subprocess  # noqa: TID251 (a shell that reads a terminal of ours)
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from utilityvm.cli.describe import describe
from utilityvm.cli.main import main, whole_parser
from utilityvm.cli.shells import SHELLS
from utilityvm.kit.proc import run_tool

Complete = Callable[..., list[str]]

_ZSH_SET_UP = """\
autoload -Uz compinit; compinit -u -D; source {script}
compadd() {{ local -a hits; builtin compadd -O hits "$@"; print -rl -- $hits >>{hits}; builtin compadd "$@" }}
comppostfuncs=(exit); bindkey '^I' complete-word
"""


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Complete:
    """Complete the last of some words in a shell with the script that `uvm completion` prints."""
    shell = str(request.param)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert main(["completion", shell]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](script)


def _bash(script: Path) -> Complete:
    # What readline does: it parts words at "=", too, and calls the function that `complete` names.
    code = (
        'source "$0"; [[ $(complete -p uvm) == "complete -F _uvm uvm" ]] || exit 9; '
        'COMP_WORDS=(uvm "$@"); COMP_CWORD=$#; _uvm; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def complete(*words: str) -> list[str]:
        parted = [part for word in words for part in word.replace("=", "\n=\n").split("\n") if part or not word]
        said = run_tool(["bash", "--norc", "--noprofile", "-c", code, script, *parted], within=30)
        return sorted(filter(None, said.splitlines()))

    return complete


def _fish(script: Path) -> Complete:
    def complete(*words: str) -> list[str]:
        said = run_tool(["fish", "--no-config", "-c", f"source {script}; complete -C 'uvm {' '.join(words)}'"], within=30)
        return sorted(line.split("\t")[0].split("=")[-1] for line in said.splitlines())

    return complete


def _zsh(script: Path) -> Complete:
    """zsh completes in its line editor only, which wants a terminal."""

    def complete(*words: str) -> list[str]:
        hits = script.with_name("hits")
        hits.write_text("")
        ours, theirs = pty.openpty()
        with subprocess.Popen(["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as zsh:  # noqa: S607
            os.close(theirs)
            os.write(ours, f"{_ZSH_SET_UP.format(script=script, hits=hits)}uvm {' '.join(words)}\t".encode())
            with suppress(OSError):  # the terminal's end when zsh has ended
                while select.select([ours], [], [], 30)[0]:
                    os.read(ours, 65536)
            zsh.kill()
        os.close(ours)
        return sorted(set(hits.read_text().split()))

    return complete


def test_verbs_flags_and_choices_are_completed(complete: Complete) -> None:
    assert complete("bo") == ["boot", "boot-files"]
    assert complete("boot", "--mem") == ["--memory", "--memory-size-in-mb"]
    assert complete("boot", "--no-kernel") == ["--no-kernel-direct"]
    assert complete("-v", "boot-files", "") == ["build", "show"]
    assert complete("document", "") == ["lcow", "wcow"]
    assert complete("document", "lcow", "--platform", "") == ["hyperv", "qemu"]
    assert complete("boot", "--memory", "256", "--preferred-root-fs-type", "v") == ["vhd"]
    assert complete("boot", "--preferred-root-fs-type=v") == ["vhd"]
    assert complete("pull", "--tls") == ["--tls-verify"]
    assert complete("import", "--kind", "") == ["docker", "oci", "rootfs"]
    assert complete("completion", "") == ["bash", "fish", "zsh"]


def test_a_value_that_is_a_file_is_completed_and_one_that_is_anything_is_not(complete: Complete, tmp_path: Path) -> None:
    (tmp_path / "options.toml").touch()
    found = complete("boot", "--options", f"{tmp_path}/opt")
    assert any(hit.endswith("options.toml") for hit in found)
    assert complete("boot", "--memory", "") == []


def test_the_program_in_the_guest_is_nothing_to_us(complete: Complete) -> None:
    assert complete("boot", "--", "--mem") == []
    assert complete("boot", "ls", "--mem") == []


def test_a_zsh_script_begins_with_the_words_by_which_compinit_finds_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef uvm\n")


def test_every_verb_and_every_flag_is_in_every_script() -> None:
    top = describe(whole_parser())
    names = [name for command in top.walk() for flag in command.flags for name in flag.names]
    assert len(names) > 100
    for shell, script in SHELLS.items():
        text = script(top)
        for name in names:
            assert (name if shell != "fish" else f" -{'l ' + name[2:] if name.startswith('--') else 's ' + name[1:]} ") in text
        assert "@" not in text.replace("$@", "").replace("[@]", "").replace("(@)", "")


def test_it_names_a_shell_that_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "choose from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "loaded"),
    [
        (["--version"], {"main"}),
        (["options", "lcow"], {"main", "options", "guests"}),
        (["document", "lcow"], {"main", "document", "guests", "flags"}),
        (["boot-files", "show", "--help"], {"main", "boot_files"}),
        (["cpugroup", "--help"], {"main", "cpugroup"}),
        (["pull", "--help"], {"main", "pull", "registries", "values"}),
        (["images", "--help"], {"main", "images"}),
        (["import", "--help"], {"main", "import_"}),
        (["stats", "--help"], {"main", "stats", "table", "values"}),
        (["boot", "--help"], {"main", "attach", "boot", "flags", "from_template", "network", "stdio", "terminal", "timeline", "values"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_verb_loads_no_other_verb(words: list[str], loaded: set[str]) -> None:
    code = (
        "import sys; from utilityvm.cli.main import main; main(sys.argv[1:]); "
        "names = [name for name in sys.modules if name.startswith('utilityvm.cli.') or name in ('asyncio', 'tomllib', 'difflib')]; "
        "print(*names, file=sys.stderr)"
    )
    said = run_tool(["sh", "-c", '"$0" "$@" 2>&1 >/dev/null', sys.executable, "-c", code, *words], within=30)
    ours = {name.removeprefix("utilityvm.cli.") for name in said.split()}
    assert ours - {"asyncio"} == loaded
    assert ("asyncio" in ours) == (words[0] in {"boot", "stats"})
