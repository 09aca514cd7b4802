"""Fuzz the host's parsers: ``python -m tests.fuzz.run [INPUTS] [SEED]``, as `make fuzz` does. Ends with 1 when something crashed.

Prints the seed, with which the same inputs are made again. An input that crashes is saved in `tests/fuzz/corpus`, from where the
tests read it ever after. A thousandth of the inputs is written down for the agent's codecs, which must read the same from them.
"""

import json
import re
import resource
import secrets
import sys
from random import Random
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from tests.golden.wire.test_golden import REFUSALS
from utilityvm.kit.errors import ProtocolError
from utilityvm.wire.frames import Frame, FrameReader
from utilityvm.wire.packets import CONTROL, STREAM, Op, Packet, PacketReader

from .hunt import Found, hunt, save
from .mutate import Mutator
from .near import bridge, stream
from .targets import ROOT, Target, check_frames, check_packets, check_streams, targets

INPUTS: Final = 1_000_000
NEAR_SHARE: Final = 10  # thousandths that hypothesis builds
BOTH_SHARE: Final = 2  # thousandths that the agent's codecs read too


def main(words: list[str]) -> int:
    inputs = int(words[0]) if words else INPUTS
    seed = int(words[1]) if len(words) > 1 else secrets.randbelow(1 << 32)
    print(f"fuzzing the host's parsers: {inputs} inputs, seed {seed}", flush=True)
    near = inputs * NEAR_SHARE // 1000
    nearly_right(near, seed)
    print(f"{'nearly right':12} {near:8} inputs by hypothesis", flush=True)
    total, crashed = near, False
    for target in targets():
        found = hunt(target, (inputs - near) * target.share // 1000, seed)
        tell(target, found)
        total += found.inputs
        crashed |= bool(found.crashes)
    write_vectors(inputs * BOTH_SHARE // 1000, seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{total} inputs, {'CRASHES, see above' if crashed else 'no crash'}, at most {peak} MiB of memory", flush=True)
    return int(crashed)


def tell(target: Target, found: Found) -> None:
    each = found.seconds / max(1, found.inputs) * 1e6
    print(
        f"{target.name:12} {found.inputs:8} inputs, {each:5.0f} µs each, {len(found.corpus)} kept, {len(found.crashes)} crashes", flush=True
    )
    for data, why in found.crashes:
        print(f"  {save(target.name, data).relative_to(ROOT)}: {why[:300]}")


def nearly_right(count: int, seed: int) -> None:
    """Let hypothesis build `count` inputs; it shrinks and prints what crashes."""

    @hypothesis_seed(seed)
    @settings(max_examples=max(1, count // 2), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(stream, st.integers(0, 1 << 32))
    def streams(data: bytes, fate: int) -> None:
        check_packets(data, Random(fate))  # noqa: S311
        check_streams(data, Random(fate))  # noqa: S311

    @hypothesis_seed(seed)
    @settings(max_examples=max(1, count - count // 2), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bridge, st.integers(0, 1 << 32))
    def frames(data: bytes, fate: int) -> None:
        check_frames(data, Random(fate))  # noqa: S311

    streams()
    frames()


# -- the agent's codecs read the same -----------------------------------------------------------------------------------


def write_vectors(count: int, seed: int) -> None:
    """Write what our codecs make of mutated streams as vectors, of which the agent's tests must make the same."""
    folder = ROOT / "build" / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    for target in targets():
        if target.name in {"packets", "frames"}:
            (folder / f"{target.name}.json").write_text(json.dumps(vectors(target, max(1, count // 2), seed)))
    print(f"{count} inputs and what was read of them are in {folder.relative_to(ROOT)}, for the agent's codecs", flush=True)


def vectors(target: Target, count: int, seed: int) -> list[dict[str, Any]]:
    mutator, made = Mutator(seed, target.form), []
    for number in range(count):
        data = mutator.change(target.seeds[number % len(target.seeds)], target.seeds)
        made.append({"name": f"{target.name} {number}", "from": "guest", "hex": data.hex(), "events": events(target.name, data)})
    return made


def events(name: str, data: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    reader: PacketReader | FrameReader = PacketReader() if name == "packets" else FrameReader()
    try:
        for item in reader.feed(data):
            found.append(written(item))  # noqa: PERF401 (those before a refusal count)
    except ProtocolError as refusal:
        found.append({"error": reason(str(refusal))})
    return found


def written(item: Packet | Frame) -> dict[str, Any]:
    if isinstance(item, Frame):
        return {"type": item.type, "id": item.id, "body": item.body.hex()}
    fields = {name: getattr(item, name) for name in ("src_port", "dst_port", "flags", "buf_alloc", "fwd_cnt")}
    return {"type": STREAM if isinstance(item.op, Op) else CONTROL, "op": item.op.value, "payload": item.payload.hex(), **fields}


def reason(refusal: str) -> str:
    (name,) = [name for name, words in REFUSALS.items() if re.search(words, refusal)]
    return name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
