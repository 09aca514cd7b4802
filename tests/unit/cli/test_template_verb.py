"""`uvm template`: what it prints and how it ends; and what `--from` makes of the options."""

import argparse
import io
import json
import sys
from pathlib import Path

import pytest
from tests.unit.templates.kept import SIZE, STATE, keep, manifest

from utilityvm.cli import boot, from_template, run, template
from utilityvm.cli.main import main
from utilityvm.kit.errors import InvalidOptions
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.sandbox.opening import Plan
from utilityvm.store.layout import Layout
from utilityvm.templates.template import Template

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    own = Layout(tmp_path / "state", tmp_path / "cache", tmp_path / "boot")
    own.boot_files.mkdir()
    monkeypatch.setattr(Layout, "of_user", lambda: own)
    return own


@pytest.fixture
def warm(layout: Layout) -> Template:
    """A template that is there."""
    keep(layout.templates, layout.boot_files)
    found = manifest(layout.boot_files)
    return Template(found.id, found.options, found.created, layout.templates / "warm")


# -- what is there ------------------------------------------------------------------------------------------------------


def test_templates_are_listed_for_people_and_for_programs(warm: Template, layout: Layout, capsys: Said) -> None:
    keep(layout.templates, layout.boot_files, "other")
    assert main(["template", "list"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "CREATED", "MEMORY", "CPUS", "SIZE"]
    assert [(line[0], line[3:6]) for line in lines[1:]] == [(name, ["64", "MiB", "1"]) for name in ("other", "warm")]
    assert main(["template", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["id"], second["id"], second["created"], second["memory_size_in_mb"]) == ("other", "warm", 1.5, 64)
    assert (second["size"], second["folder"]) == (warm.size, str(layout.templates / "warm"))


def test_nothing_is_listed_where_nothing_is(capsys: Said) -> None:
    assert main(["template", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.usefixtures("warm")
def test_all_that_is_known_of_a_template_is_shown(capsys: Said) -> None:
    assert main(["template", "show", "warm"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert (shown["machine"]["qemu"], shown["machine"]["memory_bytes"], shown["options"]["is_template"]) == ("7.2.0", SIZE, True)
    assert main(["template", "show", "warm", "absent"]) == 3
    assert "template absent: there is none in" in capsys.readouterr().err


def test_templates_are_removed_each_by_itself(warm: Template, capsys: Said) -> None:
    assert main(["template", "rm", "absent", "../x", "warm"]) == 2
    said = capsys.readouterr()
    assert said.out == "warm\n"
    assert "template absent: there is none in" in said.err
    assert "'../x' cannot name a template" in said.err
    assert not warm.folder.exists()


# -- archives -----------------------------------------------------------------------------------------------------------


def test_a_template_is_exported_for_its_owner_alone_and_imported_under_another_name(warm: Template, tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "warm.tar"
    assert main(["template", "export", "warm", str(file)]) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert main(["template", "import", str(file), "again"]) == 0
    assert capsys.readouterr().out == "again\n"
    assert (warm.folder.parent / "again" / "state").read_bytes() == STATE
    assert main(["template", "import", str(file)]) == 3
    assert "template warm: there is one in" in capsys.readouterr().err


@pytest.mark.usefixtures("warm")
def test_archives_pass_through_pipes(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    assert main(["template", "export", "warm"]) == 0
    data = capsysbinary.readouterr().out
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["template", "import", "-", "again"]) == 0


def test_what_is_no_archive_is_told_and_leaves_nothing(layout: Layout, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    assert main(["template", "import", str(tmp_path / "file")]) == 12
    assert main(["template", "import", str(tmp_path / "absent")]) == 3
    assert "absent" in capsys.readouterr().err
    assert not layout.templates.exists()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("warm")
def test_a_terminal_is_no_place_for_an_archive(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal())
    assert main(["template", "import", "-"]) == 2
    assert "standard input is a terminal" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", _Terminal())
    assert main(["template", "export", "warm"]) == 2
    assert "standard output is a terminal" in capsys.readouterr().err


# -- what is made -------------------------------------------------------------------------------------------------------


def wanted(*words: str) -> tuple[OptionsLCOW, list[str]]:
    parser = argparse.ArgumentParser()
    template.add_arguments(parser)
    return template.wanted(parser.parse_args(["create", *words]))


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["warm"], []),
        (["warm", "--"], []),
        (["warm", "sh", "-c", "true"], ["sh", "-c", "true"]),
        (["warm", "--", "--odd", "-x"], ["--odd", "-x"]),
        (["--timeout", "3", "warm", "true"], ["true"]),
    ],
)
def test_a_name_and_a_command_are_all_that_is_needed(words: list[str], command: list[str]) -> None:
    options, runs = wanted("--memory", "256", *words)
    assert (options.id, options.is_template, options.memory_size_in_mb, runs) == ("warm", True, 256, command)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "^no name: say how the template is to be called"),
        (["warm", "--memory", "256"], "^--memory stands behind NAME, where the command is$"),
        (["--timeout", "3", "warm"], "^--timeout without a command"),
        (["--id", "other", "warm"], r"^a template's VM has its name as id \(warm\) and is_template"),
        (["--no-is-template", "warm"], "^a template's VM has its name as id"),
        (["../x"], r"'\.\./x'"),
        (["--enable-cold-discard-hint", "warm"], "enable_cold_discard_hint"),
        (["--forkable", "warm"], "^forkable: the VM ends with its command and nobody forks it$"),
    ],
)
def test_a_template_that_cannot_be_is_refused_before_anything_boots(words: list[str], said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        wanted(*words)


# -- VMs that go on from one --------------------------------------------------------------------------------------------


def of_boot(found: Template | None, *words: str) -> OptionsLCOW:
    parser = argparse.ArgumentParser()
    boot.add_arguments(parser)
    return from_template.options_of(parser.parse_args(words), found)


def of_run(found: Template | None, *words: str) -> Plan:
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return run.plan_of(parser.parse_args(words), found)


def test_a_vm_from_a_template_has_its_options_and_an_id_of_its_own(warm: Template) -> None:
    options = of_boot(warm, "--from", "warm", "--id", "mine", "--", "true")
    assert options == warm.clone_options("mine")
    assert of_run(warm, "--from", "warm", "--name", "box", "busybox").options == warm.clone_options("box")
    assert of_run(warm, "--from", "warm", "busybox").options.id == ""


def test_without_one_it_has_what_was_given(warm: Template) -> None:
    assert not of_boot(None, "--memory", "128").is_clone
    assert of_run(None, "--name", "box", "-m", "64m", "busybox").options.id == "box"
    assert warm.options.memory_size_in_mb != 128


async def test_the_template_is_looked_up_by_its_name(warm: Template) -> None:
    assert await from_template.template_of(argparse.Namespace(template="warm")) == warm
    assert await from_template.template_of(argparse.Namespace(template=None)) is None


def test_options_that_are_as_the_templates_may_be_given(warm: Template, layout: Layout) -> None:
    words = ["--memory", "64", "--cpus", "1", "--boot-files-path", str(layout.boot_files)]
    assert of_boot(warm, "--from", "warm", "--id", "x", *words) == warm.clone_options("x")


def test_options_that_are_not_are_refused_by_their_names(warm: Template, tmp_path: Path) -> None:
    (file := tmp_path / "vm.toml").write_text("processor_count = 2\n")
    with pytest.raises(InvalidOptions, match="^--from warm: --memory-size-in-mb is 128, the template's is 64$") as refused:
        of_boot(warm, "--from", "warm", "--memory", "128", "--options", str(file), "--is-template")
    assert [problem.message for problem in refused.value.problems] == [
        "--memory-size-in-mb is 128, the template's is 64",
        "--processor-count is 2, the template's is 1",
        "--is-template is what --from warm says",
    ]
    assert "uvm template create" in refused.value.hint


def test_a_container_that_has_no_room_in_the_templates_vm_is_refused(warm: Template) -> None:
    said = "^--from warm: --memory-size-in-mb would have to be [0-9]+ for what is to run in it, the template's is 64$"
    with pytest.raises(InvalidOptions, match=said) as refused:
        of_run(warm, "--from", "warm", "-m", "1g", "--cpus", "2", "busybox")
    assert len(refused.value.problems) == 2
    assert of_run(warm, "--from", "warm", "--cpus", "0.5", "busybox").options.is_clone


def test_to_go_on_from_a_template_and_to_boot_is_refused(warm: Template) -> None:
    with pytest.raises(InvalidOptions, match="^--from and --no-template contradict each other$"):
        of_run(warm, "--from", "warm", "--no-template", "busybox")
