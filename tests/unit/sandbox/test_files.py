"""What the calls for files ask of a sandbox, and how they tell what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from utilityvm.guest.collect import Completed
from utilityvm.guest.process import Process
from utilityvm.kit.errors import GuestError, InvalidOptions, OutputLimitExceeded
from utilityvm.sandbox.files import Files


@dataclass
class Programs:
    """A sandbox whose programs say as much as is wanted."""

    output: bytes = b""
    complaint: bytes = b""
    code: int = 0
    asked: list[Sequence[str]] = field(default_factory=list)

    async def run(self, words: Sequence[str], *, data: bytes | None, user: str | None, limit: int) -> Completed:
        del data, user
        self.asked.append(words)
        if max(len(self.output), len(self.complaint)) > limit:
            raise OutputLimitExceeded("too much", stdout=self.output[:limit], stderr=self.complaint[:limit])
        return Completed(self.code, self.output, self.complaint)

    async def exec(self, words: Sequence[str], *, stdin: bool, user: str | None) -> Process:
        raise AssertionError((words, stdin, user))


async def test_the_guest_alone_says_where_a_path_leads_that_goes_up() -> None:
    programs = Programs()
    await Files(programs, "box").read("//a/./link/../b/")
    assert programs.asked[0][-1] == "/a/link/../b"


async def test_a_copy_of_what_has_no_name_is_refused(tmp_path: Path) -> None:
    files = Files(Programs(), "box")
    with pytest.raises(InvalidOptions, match="'/a/..' does not name what is copied"):
        await files.copy_out("/a/..", tmp_path)
    with pytest.raises(InvalidOptions, match="'/a/..' does not name what is copied"):
        await files.copy_in(tmp_path, "/a/..")


async def test_a_file_that_is_too_large_is_told_by_its_name() -> None:
    with pytest.raises(OutputLimitExceeded, match="^box: /dev/zero: it has more than 10 bytes$") as caught:
        await Files(Programs(bytes(11)), "box").read("/dev/zero", limit=10)
    assert (caught.value.stdout, caught.value.hint) == (bytes(10), "raise limit, or copy it out")


async def test_a_folder_of_which_much_cannot_be_removed_is_told_with_the_first_reasons() -> None:
    complaint = b"rm: can't remove '/proc/1': Operation not permitted\n" * 1000
    with pytest.raises(GuestError, match="^box: /proc: rm: can't remove '/proc/1': Operation not permitted"):
        await Files(Programs(complaint=complaint, code=1), "box").remove("/proc")


async def test_what_is_no_file_is_neither_read_nor_written() -> None:
    for call in (Files(Programs(code=46), "box").read("/p"), Files(Programs(code=46), "box").write("/p", b"")):
        with pytest.raises(InvalidOptions, match="^box: /p is a pipe, a socket or a device, and no file$"):
            await call


async def test_text_that_is_not_utf_8_is_told_before_anything_is_asked() -> None:
    programs = Programs()
    with pytest.raises(InvalidOptions, match=r"^data is not UTF-8: '\\udcff'$"):
        await Files(programs, "box").write("/f", "a\udcff")
    assert programs.asked == []


async def test_a_full_disk_is_told_with_what_to_do() -> None:
    with pytest.raises(GuestError, match="^box: /f: cat: write error: No space left on device$") as caught:
        await Files(Programs(complaint=b"cat: write error: No space left on device\n", code=1), "box").write("/f", b"")
    assert "scratch_size" in caught.value.hint
