"""What the documents show exists: flags are those of `uvm`, names those of the package, and every page is linked."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from utilityvm.cli.describe import Command, describe
from utilityvm.cli.main import whole_parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "protocol").glob("*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
PARSER = whole_parser()
COMMANDS = {command.path: command for command in describe(PARSER).walk()}
REDIRECTIONS = {"<", ">", ">>"}


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code in a language, also those in a list."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def commands(script: str) -> Iterator[list[str]]:
    """The commands of a shell's script, each as its words, without what leads into files and out of them."""
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        words = iter([*lexer, ";"])
        for word in words:
            if word in REDIRECTIONS:
                next(words)
            elif set(word) <= set("();|&"):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def named(words: list[str]) -> Command:
    """The command of `uvm` that words begin with."""
    path: tuple[str, ...] = ("uvm",)
    for word in words[1:]:
        if (*path, word) in COMMANDS:
            path = (*path, word)
        elif not word.startswith("-"):
            break
    return COMMANDS[path]


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_line_of_uvm_is_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for script in [block for language in ("sh", "console") for block in blocks(TEXTS[name], language)]:
        for words in commands(script.replace("$PWD", str(ROOT))):
            if words[0] == "uvm":
                try:
                    PARSER.parse_args(words[1:])
                except SystemExit:
                    pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")


@pytest.mark.parametrize("name", TEXTS)
def test_every_verb_and_flag_of_uvm_that_is_named_in_a_sentence_exists(name: str) -> None:
    for text in re.findall(r"`uvm ([^`\n]+)`", TEXTS[name]):
        words = ["uvm", *text.replace("|", " ").split()]
        command = named(words)
        verb = next((word for word in words[1:] if not word.startswith("-")), "VERB")
        assert len(command.path) > 1 or verb in {"VERB", "…"}, f"{text}: no verb of uvm"
        known = {"--help", *(flag for each in (COMMANDS[("uvm",)], command) for argument in each.flags for flag in argument.names)}
        own = words[: words.index("--")] if "--" in words else words
        for word in own:
            assert not re.match(r"--[a-z]", word) or word in known, f"{text}: {word}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_program_is_one_and_what_it_imports_and_calls_of_the_package_is_there(name: str) -> None:
    for block in blocks(TEXTS[name], "python"):
        tree = compile(block, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        assert isinstance(tree, ast.Module)
        ours: dict[str, object] = {"utilityvm": import_module("utilityvm")}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [
                    (alias.asname or alias.name.partition(".")[0], alias.name if alias.asname else alias.name.partition(".")[0])
                    for alias in node.names
                ]
                ours |= {called: import_module(module) for called, module in modules if module.startswith("utilityvm")}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("utilityvm"):
                assert [alias.name for alias in node.names if not hasattr(import_module(node.module), alias.name)] == []
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and inspect.ismodule(ours.get(node.value.id)):
                assert hasattr(ours[node.value.id], node.attr), f"{node.value.id}.{node.attr}"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, next_ones = set[str](), ["README.md"]
    while next_ones:
        if (name := next_ones.pop()) in TEXTS and name not in reached:
            reached.add(name)
            links = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]) if "://" not in target]
            next_ones += [((ROOT / name).parent / link).resolve().relative_to(ROOT).as_posix() for link in links if link]
    assert set(TEXTS) - reached == set()
