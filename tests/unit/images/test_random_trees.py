"""Any tree is in its image as it was in its archive; and whatever an archive's entries are, the image is in its form."""

import contextlib
import io
import stat
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from utilityvm.images.layer import convert
from utilityvm.kit.errors import BadArchive

from .reader import Reader
from .tars import Item, archive, made

names = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.sampled_from(["!", "a", "b", "..a", "...", "-", "\n", "n" * 255]),
).filter(lambda name: name not in {".", ".."} and not name.startswith(".wh.") and len(name.encode()) <= 255)
contents = st.one_of(st.binary(max_size=20), st.integers(0, 3).map(lambda n: b"x" * (4096 * n)), st.binary(min_size=4090, max_size=4100))
times = st.integers(-(10**10), 10**10)
owners = st.integers(0, 2**32 - 2)
modes = st.integers(0, 0o7777)
attributes = st.dictionaries(st.sampled_from(["user.a", "trusted.b", "security.c"]), st.text(max_size=20), max_size=3)


@st.composite
def nodes(draw: st.DrawFn) -> Item:
    item = Item("", mode=draw(modes), uid=draw(owners), gid=draw(owners), mtime=draw(times))
    item.pax = {f"SCHILY.xattr.{name}": value for name, value in draw(attributes).items()}
    item.type = draw(st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]))
    if item.type == tarfile.REGTYPE:
        item.data = draw(contents)
    elif item.type == tarfile.SYMTYPE:
        item.target = draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60))
    elif item.type in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        item.device = (draw(st.integers(1, 0xFFF)), draw(st.integers(0, 0xFFFFF)))
    return item


trees = st.recursive(nodes(), lambda inside: st.dictionaries(names, inside, max_size=6), max_leaves=25)


def flat(tree: object, path: str = "") -> list[Item]:
    """The entries of a tree, its folders before what is in them."""
    if isinstance(tree, Item):
        tree.name = path
        return [tree]
    assert isinstance(tree, dict)
    here = [Item(path, type=tarfile.DIRTYPE, mode=0o700)] if path else []
    return [*here, *(item for name, inside in tree.items() for item in flat(inside, f"{path}/{name}" if path else name))]


FORMS = {
    tarfile.REGTYPE: stat.S_IFREG,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.DIRTYPE: stat.S_IFDIR,
}


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(names, trees, max_size=6))
def test_a_tree_is_in_its_image_as_it_was_in_its_archive(tree: dict[str, object]) -> None:
    items = flat(tree)
    _, image = made(archive(*items))
    assert set(image.files) == {b"", *(item.name.encode() for item in items)}
    for item in items:
        file = image.files[item.name.encode()]
        mode = 0o777 if item.type == tarfile.SYMTYPE else item.mode
        assert file.mode == FORMS[item.type] | mode
        assert (file.uid, file.gid, file.mtime, file.device) == (item.uid, item.gid, item.mtime * 10**9, item.device)
        assert file.xattrs == {name.removeprefix("SCHILY.xattr.").encode(): value.encode() for name, value in item.pax.items()}
        if item.type in {tarfile.REGTYPE, tarfile.SYMTYPE}:
            assert file.data == (item.data or item.target.encode())


short = st.sampled_from(
    ["a", "b", "c", "a/b", "a/c", "b/a", "a/b/c", "./a", "/b", "a/../c", ".wh.a", "a/.wh.b", "a/.wh..wh..opq", ".wh..wh.plnk/1", "."]
)
anything = st.builds(
    Item,
    short,
    data=st.sampled_from([b"", b"x"]),
    type=st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]),
    target=st.sampled_from(["a", "b", "a/b", "/c", "../b", "../../a", ".", "/"]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(anything, max_size=12))
def test_whatever_the_entries_are_the_image_is_in_its_form_or_they_are_refused(items: list[Item]) -> None:
    for item in items:
        if item.type != tarfile.REGTYPE:
            item.data = b""
    out = io.BytesIO()
    with contextlib.suppress(BadArchive):
        convert(io.BytesIO(archive(*items)), out)
        files = Reader(out.getvalue()).files
        assert not any(name.startswith(b".wh.") for path in files for name in path.split(b"/"))
