"""A file is small enough to be read at once, and a function to be seen at once."""

import ast
import io
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 400
FUNCTION_LINES = 40
EXCEPTIONS = tomllib.loads(Path(__file__).with_name("budgets.toml").read_text())

_NO_LOGIC = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


def logic_lines(text: str) -> set[int]:
    """The lines that hold code: no blanks, comments or strings that stand alone, as docstrings do."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_LOGIC:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Every function's name and its logic lines, those of functions inside it included."""
    lines = logic_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, len(lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))


def sources() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def test_only_code_is_counted() -> None:
    text = '"""Doc."""\n\n# why\nx = [\n    1,\n]\n\n\ndef f() -> str:\n    """Doc\n    goes on."""\n    return """two\n    lines"""\n'
    assert logic_lines(text) == {4, 5, 6, 9, 12, 13}
    assert dict(functions(text)) == {"f": 3}


def test_no_file_is_over_its_budget() -> None:
    over = {
        str(path.relative_to(ROOT)): size
        for path in sources()
        if (size := len(logic_lines(path.read_text()))) > FILE_LINES and str(path.relative_to(ROOT)) not in EXCEPTIONS["files"]
    }
    assert over == {}, f"over {FILE_LINES} logic lines"


def test_no_function_is_over_its_budget() -> None:
    names = ((f"{path.relative_to(ROOT)}::{name}", size) for path in sources() for name, size in functions(path.read_text()))
    over = {name: size for name, size in names if size > FUNCTION_LINES and name not in EXCEPTIONS["functions"]}
    assert over == {}, f"over {FUNCTION_LINES} logic lines"


@pytest.mark.parametrize("kind", ["files", "functions"])
def test_every_exception_has_a_reason_and_a_subject(kind: str) -> None:
    for name, reason in EXCEPTIONS[kind].items():
        assert (ROOT / name.partition("::")[0]).is_file(), name
        assert len(reason) > 20, name
