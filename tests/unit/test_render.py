"""Templates and YAML."""

import re

import pytest
from jinja2 import UndefinedError

from roles.render import parsed, render, stamped


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
