"""What the tree may hold: names, paths, packages, vectors."""

import ast
import hashlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from utilityvm.cli import timeline
from utilityvm.kit import otel
from utilityvm.kit.proc import run_tool
from utilityvm.kit.trace import FIELDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "utilityvm"
VAGUE = {"util", "utils", "common", "helpers", "misc", "manager", "core"}
OF_A_SPAN = {"us", "error"}
TOLD = {"event", "span", "measured"}


def tracked() -> list[Path]:
    names = run_tool(["git", "-C", ROOT, "ls-files", "-z"], within=30).split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]


def test_modules_are_named_for_what_they_hold() -> None:
    suffixes = {".py", ".go"}
    vague = [path for path in tracked() if path.suffix in suffixes and VAGUE & {path.stem, *path.relative_to(ROOT).parent.parts}]
    assert vague == []


def test_no_file_names_the_place_of_this_checkout() -> None:
    here = re.compile(rb"(?<![\w./-])" + re.escape(str(ROOT).encode()) + rb"(?![\w-])")
    assert [path for path in tracked() if here.search(path.read_bytes())] == []


def test_every_package_stands_in_the_import_law() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = next(contract for contract in contracts if contract["type"] == "layers")
    named = {word.strip() for layer in floors["layers"] for word in layer.split("|")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert named == packages - {"testing"}
    fakes = next(contract for contract in contracts if contract.get("forbidden_modules") == ["utilityvm.testing"])
    assert set(fakes["source_modules"]) == {f"utilityvm.{name}" for name in named}


def test_values_are_structs() -> None:
    # A dataclass compiles itself when it is loaded, fifty times as long as a Struct takes: it is for fields that must not be in a repr.
    classes = [node for path in PACKAGE.rglob("*.py") for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    of_data = [node for node in classes if any("dataclass" in ast.unparse(one) for one in node.decorator_list)]
    assert [node.name for node in of_data if "repr=False" not in ast.unparse(node)] == []


def test_the_originals_vectors_are_unchanged() -> None:
    lines = Path(__file__).with_name("vectors.sha256").read_text().splitlines()
    folder = ROOT / "tests" / "parity" / "vectors"
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.json")} == {
        name: digest for digest, name in (line.split() for line in lines)
    }


def events() -> Iterator[tuple[str, ast.Call, str]]:
    """Every call of `event`, `span` and `measured`: where it stands, the call, and which it is."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        imported = {
            name.asname or name.name: name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "utilityvm.kit.trace"
            for name in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and imported.get(node.func.id) in TOLD:
                yield f"{path.name}:{node.lineno}", node, node.func.id


def test_events_have_a_dotted_name_and_listed_fields() -> None:
    seen = 0
    for where, call, kind in events():
        seen += 1
        name = call.args[0]
        assert isinstance(name, ast.Constant), f"{where}: an event's name is written out, so that it can be searched for"
        assert re.fullmatch(r"[a-z]+(\.[a-z]+)+", str(name.value)), where
        assert not str(name.value).startswith("guest."), f"{where}: the logger of that name has the guest's own lines"
        fields = {str(keyword.arg) for keyword in call.keywords} - {"level"}
        assert fields <= FIELDS, where
        assert kind == "event" or not fields & OF_A_SPAN, where
    assert seen > 0


def test_each_span_that_the_timeline_shows_or_that_has_a_name_of_the_original_is_measured_somewhere() -> None:
    measured = {str(call.args[0].value) for _, call, kind in events() if kind != "event" and isinstance(call.args[0], ast.Constant)}
    assert timeline.ROWS.keys() | otel.ORIGINAL_NAMES.keys() <= measured
