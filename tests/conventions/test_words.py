"""What no file may name."""

import re

import pytest

from tests.conventions.files import in_git
from tests.layers import ROOT

# Put together from parts, so that this file names nothing itself.
INDEX_HOST = re.compile(
    "|".join([r"py" r"pi\.org", r"files\.pytho" r"nhosted", r"(deb|ftp|security)\.deb" r"ian\.org"])
)
INDEX_PATH = re.compile(r"https?://[^ \"]*(/sim" r"ple|/pack" r"ages/|/deb" r"ian)")
THIS_CHECKOUT = re.compile(re.escape(f"{ROOT}/"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (INDEX_HOST, "packages come from where the machine is set up to get them"),
        (INDEX_PATH, "packages come from where the machine is set up to get them"),
        (THIS_CHECKOUT, "a path of this machine means nothing on another"),
    ],
)
def test_no_file_names(words: re.Pattern[str], why: str) -> None:
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in in_git()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if words.search(line)
    ]
    assert not named, f"{why}:\n" + "\n".join(named)
