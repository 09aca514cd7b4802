"""The OCI runtime specification: read, refused by name where it is unknown, and written as Go writes it."""

from typing import Any

import msgspec
import pytest

from utilityvm.kit.errors import InvalidOptions, Unsupported
from utilityvm.wire import oci

WHOLE: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 1, "width": 2},
        "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3], "username": "you"},
        "args": ["a"],
        "commandLine": "a b",
        "env": ["A=b"],
        "cwd": "/",
        "capabilities": {name: ["CAP_KILL"] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": (1 << 64) - 1, "soft": 0}],
        "noNewPrivileges": True,
        "apparmorProfile": "p",
        "oomScoreAdj": -1000,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 1, "priority": 2, "flags": ["f"], "runtime": 3, "deadline": 4, "period": 5},
        "selinuxLabel": "l",
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        "execCPUAffinity": {"initial": "0", "final": "1"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "h",
    "domainname": "d",
    "mounts": [
        {
            "destination": "/a",
            "type": "bind",
            "source": "/b",
            "options": ["ro"],
            "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
            "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
        }
    ],
    "hooks": {
        moment: [{"path": "/h", "args": ["h"], "env": ["A=b"], "timeout": 0}]
        for moment in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    },
    "annotations": {"a": "b"},
    "linux": {
        "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
        "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}],
        "sysctl": {"kernel.domainname": "x"},
        "resources": {
            "devices": [{"allow": False, "type": "c", "major": 0, "minor": 1, "access": "rwm"}],
            "memory": {
                "limit": -1,
                "reservation": 0,
                "swap": 1,
                "kernel": 2,
                "kernelTCP": 3,
                "swappiness": 0,
                "disableOOMKiller": False,
                "useHierarchy": True,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 2,
                "quota": -1,
                "burst": 0,
                "period": 100000,
                "realtimeRuntime": 1,
                "realtimePeriod": 2,
                "cpus": "0-3",
                "mems": "0",
                "idle": 0,
            },
            "pids": {"limit": 0},
            "blockIO": {
                "weight": 10,
                "leafWeight": 20,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 1, "leafWeight": 2}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 1}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
            "network": {"classID": 0, "priorities": [{"name": "eth0", "priority": 1}]},
            "rdma": {"mlx5_1": {"hcaHandles": 0, "hcaObjects": 1}},
            "unified": {"memory.high": "1"},
        },
        "cgroupsPath": "/x",
        "namespaces": [{"type": "network", "path": "/proc/1/ns/net"}, {"type": "pid"}],
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 0, "gid": 0}],
        "netDevices": {"eth0": {"name": "e"}},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 0,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["f"],
            "listenerPath": "/l",
            "listenerMetadata": "m",
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_ALLOW",
                    "errnoRet": 0,
                    "args": [{"index": 0, "value": (1 << 64) - 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "l",
        "intelRdt": {
            "closID": "c",
            "schemata": ["s"],
            "l3CacheSchema": "l",
            "memBwSchema": "m",
            "enableCMT": True,
            "enableMBM": True,
            "enableMonitoring": True,
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["f"]},
        "personality": {"domain": "LINUX32", "flags": ["f"]},
        "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 1}},
    },
    "windows": {
        "layerFolders": ["C:\\x"],
        "devices": [{"id": "x", "idType": "gpu"}],
        "resources": {"memory": {"limit": 1}},
        "credentialSpec": {"a": 1},
        "servicing": True,
        "ignoreFlushesDuringBoot": True,
        "hyperv": {"utilityVMPath": "x"},
        "network": {
            "endpointList": ["e"],
            "allowUnqualifiedDNSQuery": True,
            "DNSSearchList": ["d"],
            "networkSharedContainerName": "n",
            "networkNamespace": "ns",
        },
    },
}


def test_every_member_is_read_and_written_in_the_specifications_order() -> None:
    written = msgspec.json.encode(oci.read_spec(WHOLE))
    assert written == msgspec.json.encode(WHOLE)


def test_the_whole_specification_says_every_member() -> None:
    """What the test above does not say it does not test."""

    def check(kind: type, value: Any, path: str) -> None:  # noqa: ANN401 (JSON)
        for member in msgspec.structs.fields(kind):
            assert member.encode_name in value, f"{path}.{member.encode_name}"
            inner = [part for part in _parts(member.type) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
            for one in _values(value[member.encode_name]) if inner else ():
                if not (inner[0] is oci.Namespace and "path" not in one):
                    check(inner[0], one, f"{path}.{member.encode_name}")

    check(oci.Spec, WHOLE, "$")


def _parts(hint: Any) -> list[Any]:  # noqa: ANN401 (an annotation)
    arguments = getattr(hint, "__args__", ())
    return [hint, *(part for argument in arguments for part in _parts(argument))]


def _values(value: Any) -> list[Any]:  # noqa: ANN401 (JSON)
    if isinstance(value, list):
        return value
    inner = list(value.values())
    return inner if inner and all(isinstance(one, dict) for one in inner) and "path" not in value and len(inner) == 1 else [value]


def test_zero_is_zero_and_nothing_is_nothing() -> None:
    limits = oci.read_resources({"memory": {"limit": 0, "swap": None}, "pids": {"limit": 0}})
    assert limits == oci.Resources(memory=oci.MemoryLimits(limit=0), pids=oci.PidsLimit(limit=0))
    assert msgspec.json.encode(limits) == b'{"memory":{"limit":0},"pids":{"limit":0}}'


def test_null_was_not_said() -> None:
    said = oci.read_spec({"ociVersion": "1.0.2", "process": None, "mounts": [{"destination": "/a", "options": None}], "linux": None})
    assert said == oci.Spec(oci_version="1.0.2", mounts=[oci.Mount(destination="/a")])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"ociVersion": "1", "linux": {"resources": {"cats": 1}}}, r"spec: \$.linux.resources: Object contains unknown field `cats`"),
        ({"ociVersion": "1", "solaris": {}}, r"spec: \$: Object contains unknown field `solaris`"),
        ({"ociVersion": "1", "mounts": [{"destination": "/", "x": 1}]}, r"spec: \$.mounts\[0\]: Object contains unknown field `x`"),
    ],
)
def test_a_member_that_the_specification_does_not_have_is_refused_by_its_path(value: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(Unsupported, match=f"^{said}$"):
        oci.read_spec(value)


@pytest.mark.parametrize(
    ("value", "said", "path"),
    [
        ({}, r"spec: \$: Object missing required field `ociVersion`", "$"),
        ([], r"spec: \$: Expected `object`, got `array`", "$"),
        ("x", r"spec: \$: Expected `object`, got `str`", "$"),
        (
            {"ociVersion": "1", "process": {"user": {"uid": "0"}}},
            r"spec: \$.process.user.uid: Expected `int`, got `str`",
            "$.process.user.uid",
        ),
        ({"ociVersion": "1", "annotations": {"a": 1}}, r"spec: \$.annotations\[...\]: Expected `str`, got `int`", "$.annotations[...]"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_path(value: Any, said: str, path: str) -> None:  # noqa: ANN401
    with pytest.raises(InvalidOptions, match=f"^{said}$") as caught:
        oci.read_spec(value)
    assert [problem.path for problem in caught.value.problems] == [path]


def test_structs_are_taken_as_they_are() -> None:
    spec, process = oci.Spec(oci_version="1"), oci.OciProcess(user=oci.User(uid=0, gid=0), cwd="/")
    assert oci.read_spec(spec) is spec
    assert oci.read_process(process) is process
    assert oci.read_process({"user": {"uid": 0, "gid": 0}, "cwd": "/"}) == process
    limits = oci.Resources()
    assert oci.read_resources(limits) is limits
