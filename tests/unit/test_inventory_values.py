"""Values of the inventory that could be syntax of something: refused at their line, so that no template sees them."""

import re
from collections.abc import Iterator

import pytest
from ruamel.yaml import YAML

from envoymesh.model.inventory import parse
from envoymesh.problems import Failed
from tests.rendering import desired_of, files_of

FULL = """\
name: {name}
provider: existing
envoy: {{version: {version}}}
front: {{certificate_names: [{certificate_name}]}}
machines: {{box: {box}}}
ssh: {{user: {user}, jump: {jump}}}
services:
  {service}: {{path: {path}}}
hosts:
  front-envoy: {{role: edge, address: 10.77.0.10}}
  {host}: {{service: {service}, address: 10.77.0.21, ssh: {{address: {address}, key: {key}}}}}
"""
VALUES = {
    "name": "mesh",
    "version": "1.40.0",
    "certificate_name": "shop.example.org",
    "box": "debian/bookworm64",
    "user": "deploy",
    "jump": "ops@bastion:22",
    "service": "shop",
    "path": "/shop",
    "host": "shop-1",
    "address": "shop.internal",
    "key": "~/.ssh/id",
}
AWKWARD = (
    *("a'b", 'a"b', "a b", "$(reboot)", "${HOME}", "`id`", "a;b", "a|b", "a&b", "a>b", "a\\b", "a\nb", "a\n", "\ta"),
    *("%h", "%%", "{{ x }}", "{% raw %}", "a: b", "# a", "*", "[a]", "~", "..", "../a", "-oProxyCommand=id", "--x"),
    *("é", "a\u2028b", "a\u202eb", "\u00a0", "\x7f", "", "a" * 300),
)


def quoted(value: str) -> str:
    """Return a value as YAML has it between double quotes."""
    return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'


def inventory(field: str, value: str) -> str:
    return FULL.format(**{**VALUES, field: quoted(value)})


def strings(value: object) -> Iterator[str]:
    """Yield every string in a document."""
    match value:
        case str():
            yield value
        case dict():
            for pair in value.items():
                yield from strings(list(pair))
        case list():
            for item in value:
                yield from strings(item)


@pytest.mark.parametrize("field", [field for field in VALUES if field != "key"])
def test_an_awkward_value_is_refused_at_its_line(field: str) -> None:
    line = next(n for n, text in enumerate(FULL.splitlines(), 1) if f"{{{field}}}" in text)
    for value in AWKWARD:
        text = inventory(field, value)
        assert value in strings(YAML(typ="safe", pure=True).load(text)), "this test writes what it means"
        with pytest.raises(Failed) as failed:
            parse(text, "inventory.yaml", seed="")
        for problem in failed.value.problems:
            assert problem.code.startswith("inventory/"), (value, problem)
            assert problem.hint
        assert any(re.match(rf"inventory\.yaml:{line}:\d+ ", p.at) for p in failed.value.problems), value


def test_the_path_of_a_key_is_any_path() -> None:
    for value in AWKWARD:
        assert value in [h.ssh.key for h in parse(inventory("key", value), "inventory.yaml", seed="").hosts.values()]


def test_what_is_allowed_reaches_units_and_configuration_as_it_is() -> None:
    names = {"service": "s" * 40, "host": "a-0--9", "path": "/a.b_c~d-e/..f"}
    for resources in desired_of(FULL.format(**{**VALUES, **names})).values():
        for path, file in files_of(resources).items():
            assert re.fullmatch(r"[A-Za-z0-9._/-]+", path)
            text = file.content.decode()
            assert "{{" not in text
            if path.endswith(".service"):
                assert not re.search(r"[`$;|<>]", re.sub(r"^#.*$", "", text, flags=re.MULTILINE)), text
