"""The documents say what is true: commands exist, tables are current, numbers are the code's, links lead somewhere."""

import re
import shutil
import tomllib
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from tools import command_line, reference, tables

from utilityvm import load_options_lcow, load_options_wcow
from utilityvm.kit.proc import run_tool

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "protocol").glob("*.md")])
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
TARGETS = set(re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[0].split())


def code(text: str) -> list[str]:
    """What a document sets in type: blocks of commands and words between backticks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("name", TEXTS)
def test_every_make_target_exists(name: str) -> None:
    named = {target for line in code(TEXTS[name]) for target in re.findall(r"\bmake ([a-z][a-z-]*)", line)}
    assert named <= TARGETS


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, target


@pytest.mark.parametrize("name", TEXTS)
def test_every_test_that_is_named_exists(name: str) -> None:
    for file, test in re.findall(r"(tests/[\w/]+\.py)::(\w+)", TEXTS[name]):
        assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_a_promise_and_a_bound_stand_in_one_row() -> None:
    for part in ("## Behaviour", "## Bounds"):
        rows = re.findall(r"^\| ([^|]+) \|", TEXTS["SPECIFICATION.md"].partition(part)[2].partition("\n## ")[0], re.MULTILINE)
        assert [row for row, times in Counter(rows).items() if times > 1] == []


def test_every_path_of_the_architecture_exists() -> None:
    for word in re.findall(r"`([\w/.-]+)`", TEXTS["ARCHITECTURE.md"]):
        if "/" in word and re.match(r"agent/|protocol/|tests/|tools/|internal/|[a-z]+/", word) and not word.startswith("/"):
            places = (ROOT / word, ROOT / "agent" / word, ROOT / "src" / "utilityvm" / word)
            assert any(place.exists() for place in places), word


def test_every_package_of_the_agent_is_in_the_architecture() -> None:
    packages = {path.name for path in (ROOT / "agent" / "internal").iterdir() if path.is_dir()}
    assert packages <= set(re.findall(r"`(?:agent/)?internal/(\w+)`", TEXTS["ARCHITECTURE.md"]))


def test_the_readme_fits_on_a_screen_and_names_the_first_commands() -> None:
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 85
    assert {"run", "test", "setup"} <= {target for line in code(TEXTS["README.md"]) for target in re.findall(r"make ([a-z]+)", line)}


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_the_tables_are_current(name: str) -> None:
    assert tables.rewritten(TEXTS[name]) == TEXTS[name], "run tools/tables.py"


def test_every_lifecycle_is_in_the_architecture() -> None:
    modules = {
        ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        for path in (ROOT / "src").rglob("*.py")
        if re.search(r"^LIFE\b", path.read_text(), re.MULTILINE)
    }
    assert modules == set(re.findall(r"<!-- states (\S+) -->", TEXTS["ARCHITECTURE.md"]))


@pytest.mark.parametrize("name", reference.pages())
def test_the_generated_references_are_current(name: str) -> None:
    assert reference.pages()[name] == (reference.FOLDER / name).read_text(), "run tools/reference.py"


@pytest.mark.parametrize("name", TEXTS)
def test_every_options_file_that_is_shown_is_good(name: str, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", TEXTS[name], re.MULTILINE | re.DOTALL):
        (tmp_path / "vm.toml").write_text(block)
        load = load_options_wcow if "layer_folders" in block else load_options_lcow
        load(tmp_path / "vm.toml")


def test_the_manual_tells_every_variable_of_the_environment_that_the_code_reads() -> None:
    read = {found for path in (ROOT / "src").rglob("*.py") for found in re.findall(r"\bUVM_[A-Z]+\b", path.read_text())}
    assert read == set(command_line.ENVIRONMENT)


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_say_against_the_manual() -> None:
    assert run_tool(["sh", "-c", 'groff -man -Tutf8 -ww -z "$0" 2>&1', reference.FOLDER / "uvm.1"], within=30) == ""


def test_the_manual_is_installed_with_the_package() -> None:
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert (ROOT / "docs/reference/uvm.1").exists()
    assert installed["share/man/man1"] == ["docs/reference/uvm.1"]


def test_the_numbers_of_the_specification_are_the_codes() -> None:
    rows = re.findall(r"^\| [^|]+ \| ([\d ]+) \| `([\w.]+)\.(\w+)` \|", TEXTS["SPECIFICATION.md"], re.MULTILINE)
    assert len(rows) >= 19
    for value, module, name in rows:
        assert float(value.replace(" ", "")) == getattr(import_module(module), name), f"{module}.{name}"


def test_the_promises_are_those_that_the_bench_measures() -> None:
    bench = (ROOT / "bench" / "run.py").read_text()
    measured = re.findall(r'Result\("(\w+)", "[^"]+", ([\d.]+)(, higher_is_better=True)?\)', bench)
    said = {name: bound for name, (_, bound) in tables.PROMISES.items()}
    assert said == {name: f"{'≥' if higher else '≤'} {float(bound):g}" for name, bound, higher in measured}


def test_the_floors_are_those_of_the_import_law() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [{word.strip() for word in layer.split("|")} for layer in contracts[0]["layers"]]
    rows = re.findall(r"^\| \d+ \| ([^|]+) \|", TEXTS["ARCHITECTURE.md"], re.MULTILINE)
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == floors
