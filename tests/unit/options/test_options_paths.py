"""Paths of either flavour, joined and taken apart as Go's filepath does."""

import pytest

from utilityvm.options.paths import PathFlavour, base_name, directory, extension, join

WINDOWS, POSIX = PathFlavour.WINDOWS, PathFlavour.POSIX


@pytest.mark.parametrize(
    ("flavour", "elements", "joined"),
    [
        (POSIX, ("/a", "b"), "/a/b"),
        (POSIX, ("/a", "/b"), "/a/b"),
        (POSIX, ("/a/", "../c/./d"), "/c/d"),
        (POSIX, ("//a///b/", "c"), "/a/b/c"),
        (POSIX, ("", "b"), "b"),
        (POSIX, ("a", ""), "a"),
        (POSIX, ("", ""), ""),
        (POSIX, ("/a", "b\\c"), "/a/b\\c"),
        (WINDOWS, ("C:\\a", "b"), "C:\\a\\b"),
        (WINDOWS, ("C:\\a", "\\b"), "C:\\a\\b"),
        (WINDOWS, ("C:/a\\\\", "..\\c/d"), "C:\\c\\d"),
        (WINDOWS, ("\\\\server\\share", "b"), "\\\\server\\share\\b"),
        (WINDOWS, ("", ""), ""),
        (WINDOWS, ("C:", "b"), "C:b"),
        (WINDOWS, ("C:", "\\b"), "C:\\b"),
        (WINDOWS, ("C:",), "C:."),
        (WINDOWS, ("C:.\\a",), "C:a"),
        (WINDOWS, ("C:\\..\\..", "b"), "C:\\b"),
        (WINDOWS, ("\\", "\\server\\share"), "\\server\\share"),
        (WINDOWS, ("//server/share",), "\\\\server\\share"),
        (WINDOWS, ("\\\\server\\share\\..", "b"), "\\\\server\\share\\b"),
        (WINDOWS, ("\\\\?\\C:\\a", "..", "..", "b"), "\\\\?\\C:\\b"),
        (WINDOWS, ("\\\\.\\pipe", "b"), "\\\\.\\pipe\\b"),
        (WINDOWS, ("a\\..\\C:", "b"), ".\\C:\\b"),
        (WINDOWS, ("a", "..", ".."), ".."),
        (WINDOWS, ("..\\a", "..\\..\\b"), "..\\..\\b"),
        (POSIX, ("C:", "b"), "C:/b"),
        (POSIX, ("a/../c:",), "c:"),
        (POSIX, ("/..", "..", "b"), "/b"),
        (POSIX, ("//", "//"), "/"),
        (POSIX, ("a", "//b"), "a/b"),
    ],
)
def test_joining_cleans_and_skips_what_is_empty(flavour: PathFlavour, elements: tuple[str, ...], joined: str) -> None:
    assert join(flavour, *elements) == joined


@pytest.mark.parametrize(
    ("flavour", "path", "base", "folder", "suffix"),
    [
        (POSIX, "/shim/run.bin", "run.bin", "/shim", ".bin"),
        (POSIX, "runhcs", "runhcs", ".", ""),
        (POSIX, "/shim/", "shim", "/shim", ""),
        (POSIX, "/", "/", "/", ""),
        (POSIX, "", ".", ".", ""),
        (POSIX, "a\\b", "a\\b", ".", ""),
        (POSIX, "/a.d/.vhdx", ".vhdx", "/a.d", ".vhdx"),
        (WINDOWS, "C:\\shim\\run.EXE", "run.EXE", "C:\\shim", ".EXE"),
        (WINDOWS, "C:/shim/run.exe", "run.exe", "C:\\shim", ".exe"),
        (WINDOWS, "run", "run", ".", ""),
        (WINDOWS, "C:\\a.b\\run", "run", "C:\\a.b", ""),
        (WINDOWS, "C:run.exe", "run.exe", "C:.", ".exe"),
        (WINDOWS, "C:\\", "\\", "C:\\", ""),
        (WINDOWS, "\\\\server\\share\\a.vhdx", "a.vhdx", "\\\\server\\share\\", ".vhdx"),
        (WINDOWS, "\\\\server\\share", "\\", "\\\\server\\share", ""),
    ],
)
def test_a_path_is_taken_apart_by_its_flavour(flavour: PathFlavour, path: str, base: str, folder: str, suffix: str) -> None:
    assert (base_name(flavour, path), directory(flavour, path), extension(flavour, path)) == (base, folder, suffix)
