"""How much memory the host has."""

from pathlib import Path
from typing import Final

MEMINFO: Final = Path("/proc/meminfo")
"""What tells it."""


def total_and_available(meminfo: str) -> tuple[int, int]:
    """Return the bytes that there are, and those that programs may still take, by the text of `MEMINFO`; the free ones are fewer."""
    sizes = dict(line.split(":", 1) for line in meminfo.splitlines())
    total, available = (int(sizes[name].split()[0]) << 10 for name in ("MemTotal", "MemAvailable"))
    return total, available
