"""The numbers of protocol/SPEC.md are those of the host's codecs and of the agent's."""

import re
from collections.abc import Mapping
from pathlib import Path

from utilityvm.compute.qemu import lower
from utilityvm.guest.bridge import CALL_TIMEOUT
from utilityvm.guest.client import SHUTDOWN_TIMEOUT
from utilityvm.schema.properties import PropertyType
from utilityvm.vm.processes import DEFAULT_ENVIRONMENT
from utilityvm.wire import frames, gcs, packets, vsock
from utilityvm.wire.detached import DETACHED_PROCESSES

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "protocol" / "SPEC.md").read_text()
AGENT = {path.relative_to(ROOT / "agent").as_posix(): path.read_text() for path in (ROOT / "agent").rglob("*.go")}


def section(number: int) -> str:
    """The text of a numbered section of the specification."""
    found = re.search(rf"^## {number}\. .*?(?=^## |\Z)", SPEC, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def table(text: str) -> list[list[str]]:
    """The cells of all rows of the tables in a text, heads and rules left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in rows if re.match(r"0x|\d", row[0])]


def number(text: str) -> int:
    return int(text.replace(" ", ""), 0)


def go_list(file: str, first: str) -> list[str]:
    """The names of a Go constant block that counts from 1 with iota."""
    found = re.search(rf"\t{first} Op = iota \+ 1\n(.*?)\n\)", AGENT[file], re.DOTALL)
    assert found is not None
    return [first, *found[1].split()]


def go_numbers(file: str) -> Mapping[str, int]:
    """The constants of a Go file that are written as a number."""
    found = re.findall(r"^(?:const |\t)(\w+)(?: +\w+)? += (0x[0-9a-fA-F]+|[\d_]+)(?: \* (\d+))?(?: \* (\d+))?$", AGENT[file], re.MULTILINE)
    return {name: int(value, 0) * int(times or 1) * int(again or 1) for name, value, times, again in found}


def in_go(name: str) -> str:
    """CREDIT_UPDATE as Go spells it."""
    return "".join(word if word == "RW" else word.capitalize() for word in name.split("_"))


def test_stream_operations() -> None:
    said = {row[1]: number(row[0]) for row in table(section(3))}
    assert said == {op.name: op.value for op in packets.Op}
    assert go_list("wire/packet.go", "OpRequest") == [f"Op{in_go(name)}" for name in said]
    assert list(said.values()) == list(range(1, len(said) + 1))


def test_control_operations() -> None:
    said = {row[1]: number(row[0]) for row in table(section(4))}
    assert said == {op.name: op.value for op in packets.Control}
    assert go_list("wire/packet.go", "CtlReset") == [f"Ctl{in_go(name)}" for name in said]
    assert list(said.values()) == list(range(1, len(said) + 1))


def test_the_packets_header() -> None:
    rows = table(section(2))
    ends = [number(row[0]) + number(row[1]) for row in rows]
    assert [0, *ends[:-1]] == [number(row[0]) for row in rows]
    sizes = {"Q": 8, "I": 4, "H": 2}
    assert [number(row[1]) for row in rows] == [sizes[letter] for letter in packets.HEADER.format[1:]]
    assert ends[-1] == packets.HEADER.size == go_numbers("wire/packet.go")["HeaderSize"]


def test_limits_types_and_cids_of_packets() -> None:
    agent = go_numbers("wire/packet.go")
    fields = {row[2]: row[3] for row in table(section(2))}
    assert number(fields["len"].rpartition("at most ")[2]) == packets.MAX_PAYLOAD == agent["MaxPayload"]
    assert re.findall(r"(0x\w+|\d) = (\w+)", fields["type"]) == [("1", "stream"), ("0x7576", "control")]
    assert (packets.STREAM, packets.CONTROL) == (agent["TypeStream"], agent["TypeControl"]) == (1, 0x7576)
    assert fields["src_cid"] == f"{packets.HOST_CID} from the host, {packets.GUEST_CID} from the guest"
    assert (agent["hostCID"], agent["guestCID"]) == (packets.HOST_CID, packets.GUEST_CID)
    assert re.findall(r"(\d+)-byte nonce", section(4)) == [str(packets.NONCE_BYTES)] == [str(agent["NonceSize"])]
    assert "bit 0: the sender will receive no more; bit 1: the sender will send no more" in section(3)
    assert (packets.SHUT_RECEIVE, packets.SHUT_SEND) == (agent["ShutReceive"], agent["ShutSend"]) == (1 << 0, 1 << 1)
    assert "flags bit 0 = once" in section(4)
    assert packets.ONCE == 1 << 0
    assert "bit 1 = programs" in section(4)
    assert packets.PROGRAMS == 1 << 1
    assert (agent["Once"], agent["Programs"]) == (packets.ONCE, packets.PROGRAMS)


def test_limits_of_the_host() -> None:
    assert f"at most {vsock.MAX_STREAMS:,} connections".replace(",", " ") in section(3)
    assert re.search(rf"of at most\s+{vsock.MAX_DISCARD >> 20} MiB", section(4))


def test_source_ports_of_the_guest() -> None:
    first = re.search(r"from (0x\w+) up", section(3))
    assert first is not None
    assert number(first[1]) == go_numbers("internal/hvsocket/socket.go")["firstPort"]


def test_the_carriers_name() -> None:
    assert f"`{lower.PORT_NAME}`" in section(1)
    assert f'PortName = "{lower.PORT_NAME}"' in AGENT["internal/boot/carrier.go"]


def test_boot_ports() -> None:
    found = re.search(r"\*boot port\* \((\d+), (\d+), (0x\w+)\)", section(4))
    assert found is not None
    assert tuple(map(number, found.groups())) == (gcs.ENTROPY_PORT, gcs.LOG_PORT, gcs.BRIDGE_PORT)
    assert go_numbers("internal/gcs/bridge.go")["Port"] == gcs.BRIDGE_PORT
    assert f"read {gcs.ENTROPY_BYTES} bytes" in section(7)


def test_frames() -> None:
    agent = go_numbers("wire/frame.go")
    assert f"Size under {frames.HEADER.size} or over {frames.MAX_FRAME:,}".replace(",", " ") in section(5)
    assert (frames.HEADER.size, frames.MAX_FRAME) == (agent["FrameHeaderSize"], agent["MaxFrame"])
    kinds = re.findall(r"(\d) (request|response|notification)", section(5).partition("category")[0])
    assert [number(word) << 28 for word, _ in kinds] == [frames.REQUEST, frames.RESPONSE, frames.NOTIFICATION]


def test_messages() -> None:
    said = {name: number(word) for name, word in re.findall(r"(\w+) (0x101\w+)", section(5))}
    agent = go_numbers("wire/message.go")
    asked = {call.name: call.word for call in gcs.CALLS}
    assert said == asked | {"LifecycleNotification": 0x1010_0F01}, "which nobody sends"
    requests = {name: word for name, word in agent.items() if 0x1010_0000 <= word < 0x1020_0000}
    assert requests.items() <= said.items()


def test_what_the_agent_tells_of_itself() -> None:
    cut, processes = re.search(r"over (\d+) KiB", section(6)), re.search(r"at most ([\d ]+) \|", section(6))
    assert cut is not None
    assert processes is not None
    assert number(cut[1]) << 10 == go_numbers("wire/message.go")["MaxText"]
    assert number(processes[1]) == go_numbers("wire/properties.go")["MaxProcesses"]
    detached = re.search(r"lowest id first, at most (\d+);", section(6))
    assert detached is not None
    assert number(detached[1]) == go_numbers("wire/properties.go")["MaxDetached"]
    machine, _, container = section(6).partition("Of a container there are")
    said = set(re.findall(r"^\| `(\w+)` \|", machine, re.MULTILINE))
    assert said == {*PropertyType, DETACHED_PROCESSES} == set(re.findall(r'case "(\w+)":', AGENT["internal/gcs/properties.go"]))
    said = {"ProcessList", *re.findall(r"^\| `(\w+)` \|", container, re.MULTILINE)}
    assert said == set(re.findall(r'wanted\["(\w+)"\]', AGENT["internal/gcs/properties.go"]))


def test_the_hosts_patience() -> None:
    patience = re.search(r"within (\d+) minutes ends the bridge.*after\s+(\d+) s, and", section(5), re.DOTALL)
    assert patience is not None
    assert (int(patience[1]) * 60, int(patience[2])) == (CALL_TIMEOUT, SHUTDOWN_TIMEOUT)


def test_resources_are_those_that_the_agent_has_handlers_for() -> None:
    said = section(5).partition("### Resources")[2].partition("\n### ")[0]
    for text, name in zip(said.split("ModifySettings for a container"), ("resources", "inside"), strict=True):
        rows = {row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ")} - {"type", "of a container"}
        table = AGENT["internal/gcs/modify.go"].partition(f"var {name} =")[2].partition("\n}")[0]
        assert rows == set(re.findall(r'"(\w+)":', table))


def test_containers() -> None:
    said = section(5).partition("### Containers")[2].partition("\n### ")[0]
    assert number(re.findall(r"type (0x\w+) and id 0", said)[0]) == gcs.NOTIFICATION_WORD
    kinds = set(re.findall(r"`(\w+)`", said.partition("`Type`: ")[2].partition(" are known")[0]))
    assert kinds == set(gcs.NotificationType)
    assert gcs.SYSTEM_CONFIG in said
    assert gcs.SERVICE_ID.format(gcs.FIRST_STDIO_PORT) in said
    named = {name for row in said.splitlines() if row.startswith("| ") for name in re.findall(r"\b[A-Z]\w+", row.split("|")[1])}
    assert named == {
        "Create",
        "Start",
        "ExecuteProcess",
        "ShutdownGraceful",
        "ShutdownForced",
        "ModifySettings",
        "DeleteContainerState",
        "UpdateContainer",
    }


def test_bounds_of_containers() -> None:
    said = section(9)
    bounds = {
        "wire/container.go": (r"at most\s+(\d+) letters", "maxContainerID", 1),
        "internal/container/container.go": (r"at most (\d+) containers", "maxContainers", 1),
        "internal/account/account.go": (r"at most (\d+) MiB each", "MaxFile", 1 << 20),
    }
    for file, (pattern, name, unit) in bounds.items():
        found = re.search(pattern, said)
        assert found is not None, pattern
        assert int(found[1]) * unit == go_numbers(file)[name]
    disks = re.search(r"of at most (\d+) disks", section(6))
    assert disks is not None
    assert int(disks[1]) == go_numbers("internal/container/metrics.go")["maxDisks"]
    layers = re.search(r"together are at most ([\d ]+) bytes", section(5))
    assert layers is not None
    assert number(layers[1]) == go_numbers("internal/gcs/combined.go")["maxMountData"]


def test_hresults() -> None:
    said = {row[1]: number(row[0]) for row in table(section(5)) if row[0].startswith("0x")}
    assert said == go_numbers("wire/hresult.go")
    ours = {name.title().replace("_", ""): value for name, value in vars(gcs).items() if name.isupper()}
    assert {"FileNotFound", "AccessDenied", "NotFound"} <= ours.keys()
    assert {name: value for name, value in ours.items() if name in said}.items() <= said.items()


def test_the_version() -> None:
    assert f'"Version":{gcs.PROTOCOL_VERSION}' in section(5)
    assert go_numbers("wire/message.go")["ProtocolVersion"] == gcs.PROTOCOL_VERSION


def test_the_path_without_an_environment() -> None:
    path = re.search(r'defaultPath = "(.*)"', AGENT["internal/process/lookup.go"])
    assert path is not None
    assert f"`{path[1]}`" in section(6)
    assert path[1] == DEFAULT_ENVIRONMENT["PATH"]
    assert f'"PATH={path[1]}"' in AGENT["internal/boot/boot.go"]
