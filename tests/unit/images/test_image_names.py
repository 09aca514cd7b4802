import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilityvm.images.names import Reference, candidates, parse
from utilityvm.kit.errors import InvalidOptions

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("ada/tools", "docker.io/ada/tools:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("docker://quay.io/a/b:c", "quay.io/a/b:c"),
        ("localhost/mine", "localhost/mine:latest"),
        ("localhost:5000/mine", "localhost:5000/mine:latest"),
        ("127.0.0.1:5000/a/b/c:1_2.3-4", "127.0.0.1:5000/a/b/c:1_2.3-4"),
        ("[::1]:5000/mine", "[::1]:5000/mine:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"quay.io/a/b:c@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        ("a/b__c.d---e", "docker.io/a/b__c.d---e:latest"),
    ],
)
def test_a_name_is_filled_in_as_docker_does(text: str, whole: str) -> None:
    assert str(parse(text)) == whole


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not a repository"),
        ("Busybox", "in small letters"),
        ("a//b", "is not a repository"),
        ("../etc/passwd", "is not the address of a registry"),
        ("a/../b", "is not a repository"),
        ("a/.b", "is not a repository"),
        ("a___b", "is not a repository"),
        ("busybox:", "'' is not a tag"),
        ("busybox:-x", "is not a tag"),
        (f"busybox:{'x' * 129}", "is not a tag"),
        ("busybox@sha256:12", "is not a digest"),
        ("busybox@", "is not a digest"),
        ("-x.org/a", "is not the address of a registry"),
        ("a\nb", "is not a repository"),
        ("busybox\n", "is not a repository"),
        ("busybox:1\n", "is not a tag"),
        ("a" * 250, "more than 255 characters"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InvalidOptions) as caught:
        parse(text)
    assert why in caught.value.message
    assert repr(text) in caught.value.message
    assert [problem.path for problem in caught.value.problems] == ["$.image"]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/ada/tools:1", "ada/tools:1"),
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
        ("localhost/mine", "localhost/mine:latest"),
        ("quay.io/a", "quay.io/a:latest"),
        (f"busybox@{DIGEST}", f"busybox@{DIGEST}"),
    ],
)
def test_a_short_name_is_what_people_write(text: str, short: str) -> None:
    assert parse(text).short == short


PART = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8})?", fullmatch=True)
NAMES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "docker.io/", "quay.io/", "localhost/", "localhost:5000/", "library/"]),
    st.lists(PART, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", ":1", ":latest", f"@{DIGEST}"]),
)


@settings(max_examples=500)
@given(NAMES)
def test_whole_and_short_names_mean_the_same_image(text: str) -> None:
    name = parse(text)
    assert parse(str(name)) == name
    assert parse(name.short) == name


def test_a_local_name_may_also_be_one_that_podman_gave() -> None:
    assert [str(name) for name in candidates("mine")] == ["docker.io/library/mine:latest", "localhost/mine:latest"]
    assert [str(name) for name in candidates("a/b:1")] == ["docker.io/a/b:1", "localhost/a/b:1"]
    assert [str(name) for name in candidates("docker.io/mine")] == ["docker.io/library/mine:latest"]
    assert [str(name) for name in candidates("quay.io/mine")] == ["quay.io/mine:latest"]


def test_a_name_at_a_digest_has_no_tag() -> None:
    assert str(parse("busybox:1").at(DIGEST)) == f"docker.io/library/busybox@{DIGEST}"
    assert parse("busybox:1").at(DIGEST) == Reference("docker.io", "library/busybox", "", DIGEST)
