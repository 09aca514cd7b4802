"""Options of shared folders, in words and as a document has them."""

import pytest
from msgspec import structs

from utilityvm.options.resources import VsmbOption
from utilityvm.plan.windows import smb_options, words_of
from utilityvm.schema.devices import VirtualSmbShareOptions


@pytest.mark.parametrize("words", [(), *((word,) for word in VsmbOption), tuple(VsmbOption)])
def test_words_for_a_shares_options_are_those_that_they_were_made_of(words: tuple[VsmbOption, ...]) -> None:
    assert set(words_of(smb_options(words))) == set(words)


def test_there_is_a_word_for_each_of_a_shares_options() -> None:
    everything = VirtualSmbShareOptions(**{member.name: True for member in structs.fields(VirtualSmbShareOptions)})
    assert set(words_of(everything)) == set(VsmbOption)
