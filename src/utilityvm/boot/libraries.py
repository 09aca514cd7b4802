"""Which shared libraries a program needs, and where they lie in unpacked packages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from utilityvm.boot import elf
from utilityvm.kit.errors import NotFound


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library: the name that programs ask for, the folder `root` of the package that has it, and its content."""

    name: str
    root: Path
    data: bytes = field(repr=False)


def needed_libraries(program: bytes, roots: Iterable[Path]) -> list[Library]:
    """Return the libraries that `program` needs, directly or through another, looked for in the unpacked packages `roots`.

    The first is the dynamic loader. There are none for a static program.

    Raises:
        NotFound: none of the packages has a library of this name.
    """
    loader = Path(elf.interpreter(program)).name
    if not loader:
        return []
    where = {path.name: (root, path) for root in roots for path in sorted(root.rglob("*.so*")) if path.is_file()}
    found: dict[str, Library] = {}
    queue = [loader, *elf.needed(program)]
    for name in queue:
        if name in found:
            continue
        if name not in where:
            raise NotFound(f"shared library {name}: none of the packages has it")
        root, path = where[name]
        found[name] = Library(name, root, path.read_bytes())
        queue += elf.needed(found[name].data)
    return list(found.values())
