"""Where entries go, as containerd has it: what replaces what, and what hides what."""

import tarfile

from .tars import Item, archive, folder, hard_link, link, made


def names(*items: Item) -> set[bytes]:
    return set(made(archive(*items))[1].files) - {b""}


def test_paths_begin_at_the_root_whatever_their_first_character() -> None:
    assert names(Item("/a"), Item("./b"), Item("c/./d"), Item("e//f"), Item("g/../h")) == {b"a", b"b", b"c", b"c/d", b"e", b"e/f", b"h"}


def test_folders_that_are_not_mentioned_are_roots_and_everybody_reads_them() -> None:
    file = made(archive(Item("a/b/c")))[1].files[b"a/b"]
    assert (file.mode, file.uid, file.gid, file.mtime) == (0o040755, 0, 0, 0)


def test_a_folder_told_after_what_is_in_it_is_as_it_was_told() -> None:
    files = made(archive(Item("a/b"), folder("a", 0o711)))[1].files
    assert files[b"a"].mode == 0o040711
    assert b"a/b" in files


def test_the_root_is_as_it_was_told() -> None:
    told = Item("./", type=tarfile.DIRTYPE, mode=0o700, uid=5, mtime=9)
    root = made(archive(told, Item("x")))[1].files[b""]
    assert (root.mode, root.uid, root.mtime) == (0o040700, 5, 9 * 10**9)


def test_links_on_the_way_are_followed_and_never_out_of_the_root() -> None:
    assert names(
        folder("usr/lib"),
        link("lib", "usr/lib"),
        link("abs", "/usr"),
        link("out", "../../../usr"),
        link("twice", "abs/lib"),
        link("not-yet", "made/by/need"),
        Item("lib/1"),
        Item("abs/lib/2"),
        Item("out/lib/3"),
        Item("twice/4"),
        Item("not-yet/5"),
        Item("lib/../lib/6"),
    ) >= {b"usr/lib/1", b"usr/lib/2", b"usr/lib/3", b"usr/lib/4", b"made/by/need/5", b"usr/lib/6"}


def test_an_entry_replaces_the_link_of_its_name_and_not_what_that_leads_to() -> None:
    files = made(archive(Item("a", b"old"), link("l", "a"), Item("l", b"new")))[1].files
    assert (files[b"a"].data, files[b"l"].data) == (b"old", b"new")


def test_the_last_of_a_name_counts() -> None:
    files = made(archive(Item("a", b"1"), Item("a", b"2" * 9000, mode=0o600), Item("a", b"3")))[1].files
    assert files[b"a"].data == b"3"
    assert names(folder("d"), Item("d/x"), Item("d")) == {b"d"}
    assert names(Item("d"), folder("d"), Item("d/x")) == {b"d", b"d/x"}
    assert names(folder("d"), Item("d/x"), folder("d")) == {b"d", b"d/x"}
    assert names(folder("d"), Item("d/x"), link("d", "e"), Item("d/y")) == {b"d", b"e", b"e/y"}


def test_a_hard_link_stays_with_the_file_it_was_made_to() -> None:
    files = made(archive(Item("a", b"1"), hard_link("b", "a"), Item("a", b"2")))[1].files
    assert (files[b"a"].data, files[b"b"].data, files[b"b"].links) == (b"2", b"1", 1)


def test_a_hard_link_to_itself_changes_nothing() -> None:
    files = made(archive(Item("a", b"1"), hard_link("a", "a"), hard_link("./a", "/a")))[1].files
    assert (files[b"a"].data, files[b"a"].links) == (b"1", 1)


def test_a_hard_link_finds_its_file_by_links_too() -> None:
    files = made(archive(folder("usr/lib"), link("lib", "usr/lib"), Item("usr/lib/x", b"1"), hard_link("y", "lib/x")))[1].files
    assert files[b"y"].number == files[b"usr/lib/x"].number


def test_a_whiteout_hides_what_is_below_and_not_its_own_layer() -> None:
    whiteout = 0o020000
    for items in ((Item(".wh.d"), folder("d"), Item("d/x")), (folder("d"), Item("d/x"), Item(".wh.d")), (Item(".wh.d"), Item("d/x"))):
        files = made(archive(*items))[1].files
        assert files[b"d"].xattrs == {b"trusted.overlay.opaque": b"y"}
        assert b"d/x" in files
    for items in ((Item(".wh.f"), Item("f", b"1")), (Item("f", b"1"), Item(".wh.f"))):
        assert made(archive(*items))[1].files[b"f"].data == b"1"
    assert made(archive(Item("a/.wh.x"), Item("a/.wh.x")))[1].files[b"a/x"].mode == whiteout


def test_an_opaque_folder_stays_opaque_when_it_is_told_later() -> None:
    files = made(archive(Item("d/.wh..wh..opq"), folder("d", 0o700)))[1].files
    assert (files[b"d"].mode, files[b"d"].xattrs) == (0o040700, {b"trusted.overlay.opaque": b"y"})


def test_what_aufs_kept_for_itself_is_not_shown_and_may_be_linked_to() -> None:
    files = made(archive(folder(".wh..wh.plnk"), Item(".wh..wh.plnk/1", b"x"), hard_link("a", ".wh..wh.plnk/1"), Item(".wh..wh.aufs")))[
        1
    ].files
    assert set(files) == {b"", b"a"}
    assert (files[b"a"].data, files[b"a"].links) == (b"x", 1)
