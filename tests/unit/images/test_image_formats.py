import json

import pytest

from utilityvm.images import formats
from utilityvm.images.formats import Descriptor, Index, Manifest, Platform, choose, decode_config, decode_manifest, parse_platform
from utilityvm.kit.errors import Corrupt, NotFound, Unsupported

DIGEST = "sha256:" + "0" * 64


def descriptor(media_type: str, **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 3, **more}


def manifest(**more: object) -> dict[str, object]:
    return {"schemaVersion": 2, "config": descriptor(formats.OCI_CONFIG), "layers": [descriptor(formats.OCI_LAYER + "+gzip")], **more}


def read(document: object) -> Manifest | Index:
    return decode_manifest(json.dumps(document).encode(), "m")


def index(*platforms: str) -> Index:
    offered = [None if text == "-" else parse_platform(text) for text in platforms]
    entries = [Descriptor(media_type=str(n), digest=DIGEST, size=n, platform=platform) for n, platform in enumerate(offered)]
    return Index(schema_version=2, manifests=tuple(entries))


def test_manifests_and_indexes_of_oci_and_docker_are_told_apart() -> None:
    assert isinstance(read(manifest()), Manifest)
    assert isinstance(read(manifest(mediaType=formats.OCI_MANIFEST)), Manifest)
    docker = {"config": descriptor(formats.DOCKER_CONFIG), "layers": [descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip")]}
    assert isinstance(read({"schemaVersion": 2, "mediaType": formats.DOCKER_MANIFEST, **docker}), Manifest)
    for media_type in ("", formats.OCI_INDEX, formats.DOCKER_LIST):
        assert isinstance(read({"schemaVersion": 2, "mediaType": media_type, "manifests": []}), Index)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "version 1"),
        (manifest(mediaType="text/\x1b[2Jplain"), r"text/\x1b[2Jplain"),
        (
            manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")),
            "no image that can be run, but application/vnd.cncf.helm",
        ),
        (manifest(layers=[descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar")]), "nondistributable"),
        (manifest(layers=[descriptor(formats.OCI_LAYER + "+gzip+encrypted")]), "encrypted"),
    ],
)
def test_what_is_of_another_kind_is_unsupported_and_named(document: object, why: str) -> None:
    with pytest.raises(Unsupported) as caught:
        read(document)
    assert why in caught.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b'{"schemaVersion": 2}',
        b'{"schemaVersion": 2, "manifests": ' + b"[" * 100_000,
        b'{"schemaVersion": 2, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps(manifest(layers=[descriptor(formats.OCI_LAYER)] * (formats.MAX_LAYERS + 1))).encode(),
        json.dumps({"schemaVersion": 2, "manifests": [descriptor("")] * (formats.MAX_MANIFESTS + 1)}).encode(),
        json.dumps(manifest(config=descriptor(formats.OCI_CONFIG, digest="sha256:../../etc/passwd"))).encode(),
        json.dumps(manifest(config=descriptor(formats.OCI_CONFIG, size=-1))).encode(),
        json.dumps(manifest(config=descriptor(formats.OCI_CONFIG, size=1 << 70))).encode(),
        b" " * (formats.MAX_JSON + 1),
    ],
)
def test_what_cannot_be_read_is_corrupt_however_it_was_made(data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"^m: "):
        decode_manifest(data, "m")


def test_a_configuration_with_nulls_is_read_as_docker_means_it() -> None:
    said = {"User": None, "Env": None, "Entrypoint": None, "Cmd": ["sh"], "WorkingDir": "", "Volumes": None, "Labels": None}
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "config": said, "history": []}
    whole = decode_manifest(json.dumps(manifest()).encode(), "m")
    assert isinstance(whole, Manifest)
    config = decode_config(json.dumps(document).encode(), whole, "c").image_config()
    assert (config.cmd, config.entrypoint, config.env, config.user, config.volumes, config.labels) == (("sh",), (), (), "", (), {})
    assert config.platform == "linux/amd64"


def test_all_that_a_configuration_says_is_read() -> None:
    said = {
        "User": "ada:staff",
        "Env": ["A=b"],
        "Entrypoint": ["/init"],
        "Cmd": "sh",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"},
    }
    document = {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "created": "1970-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "config": said,
    }
    whole = decode_manifest(json.dumps(manifest()).encode(), "m")
    assert isinstance(whole, Manifest)
    config = decode_config(json.dumps(document).encode(), whole, "c").image_config()
    assert config.platform == "linux/arm64/v8"
    assert (config.created, config.user, config.env, config.entrypoint) == ("1970-01-01T00:00:00Z", "ada:staff", ("A=b",), ("/init",))
    assert (config.cmd, config.working_dir, config.stop_signal) == (("sh",), "/srv", "SIGINT")
    assert (config.volumes, config.exposed_ports, config.labels) == (("/data",), ("80/tcp",), {"a": "b"})


def test_a_configuration_of_other_layers_than_its_manifest_is_corrupt() -> None:
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    whole = decode_manifest(json.dumps(manifest()).encode(), "m")
    assert isinstance(whole, Manifest)
    with pytest.raises(Corrupt, match="c: is of 0 layers, its manifest of 1"):
        decode_config(json.dumps(document).encode(), whole, "c")


@pytest.mark.parametrize(
    ("offered", "wanted", "chosen"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", 1),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", 1),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", 1),
        (["linux/amd64/v3"], "linux/amd64", 0),
        (["-", "unknown/unknown", "linux/amd64"], "linux/amd64", 2),
    ],
)
def test_the_manifest_of_a_platform_is_chosen(offered: list[str], wanted: str, chosen: int) -> None:
    assert choose(index(*offered), parse_platform(wanted), "m").size == chosen


@pytest.mark.parametrize(
    ("wanted", "has", "covered"),
    [
        ("linux/amd64", ("linux", "amd64", ""), True),
        ("linux/amd64", ("linux", "amd64", "v3"), True),
        ("linux/arm64/v8", ("linux", "arm64", ""), True),
        ("linux/arm/v7", ("linux", "arm", "v6"), False),
        ("linux/arm64", ("linux", "amd64", ""), False),
        ("windows/amd64", ("linux", "amd64", ""), False),
    ],
)
def test_an_image_is_of_a_platform_when_neither_says_otherwise(wanted: str, has: tuple[str, str, str], *, covered: bool) -> None:
    assert parse_platform(wanted).covers(*has) is covered


def test_a_platform_that_is_missing_is_told_with_those_that_are_there() -> None:
    with pytest.raises(NotFound, match="m: has no image for linux/s390x, only for linux/amd64, linux/arm/v7"):
        choose(index("linux/arm/v7", "unknown/unknown", "linux/amd64"), parse_platform("linux/s390x"), "m")
    with pytest.raises(NotFound, match="only for no platform"):
        choose(index(), Platform(os="linux", architecture="amd64"), "m")


@pytest.mark.parametrize("text", ["linux", "linux/", "linux/a/b/c", ""])
def test_a_platform_has_two_or_three_parts(text: str) -> None:
    with pytest.raises(ValueError, match="is not a platform"):
        parse_platform(text)


def test_a_manifest_of_ours_is_read_again() -> None:
    config, layer = (
        Descriptor(media_type=formats.OCI_CONFIG, digest=DIGEST, size=1),
        Descriptor(media_type=formats.OCI_LAYER, digest=DIGEST, size=2),
    )
    data = formats.manifest_for(config, [layer])
    assert data == formats.manifest_for(config, [layer])
    assert decode_manifest(data, "m") == Manifest(schema_version=2, media_type=formats.OCI_MANIFEST, config=config, layers=(layer,))
