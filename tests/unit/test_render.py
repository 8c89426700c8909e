"""Templates and YAML."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from roles.render import environment, keep_compiled, parsed, render, stamped


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("sidecar/cds.yaml.j2")


def test_a_stamp_follows_the_content_and_the_file_carries_it() -> None:
    (text, version), (_, other) = stamped("resources: []\n"), stamped("resources: [1]\n")
    assert re.fullmatch(r"[0-9a-f]{16}", version)
    assert version != other
    assert parsed(text) == {"version_info": version, "resources": []}


def test_every_caller_has_a_copy_of_its_own() -> None:
    parsed("a: [1]\n")["a"].append(2)
    assert parsed("a: [1]\n") == {"a": [1]}


@pytest.fixture
def anew() -> Iterator[None]:
    """Have nothing compiled yet, as in a new process."""
    environment.cache_clear()
    yield
    environment.cache_clear()


def text() -> str:
    environment().cache.clear()  # type: ignore[union-attr]
    return render("sidecar/cds.yaml.j2", folder="/x")


def test_what_was_compiled_is_found_again_and_renders_the_same(anew: None, tmp_path: Path) -> None:
    expected = text()
    keep_compiled(tmp_path)
    assert text() == expected
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert kept
    assert text() == expected
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept


def test_a_folder_that_takes_nothing_or_has_something_else_does_no_harm(anew: None, tmp_path: Path) -> None:
    expected = text()
    keep_compiled(tmp_path / "absent")
    assert text() == expected
    keep_compiled(tmp_path)
    text()
    for path in tmp_path.iterdir():
        path.write_bytes(b"damaged")
    assert text() == expected
