"""The inventory: every mistake is one clear problem at its line, all of them at once."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from envoymesh.model.inventory import load, parse
from envoymesh.model.schema import MAX_SERVICES
from envoymesh.problems import Failed

SHIPPED = (Path(__file__).parents[2] / "inventory.yaml").read_text()

MISTAKES = {
    "unknown key": ("path: /service/2", "pth: /service/2", "inventory/unknown-key", 17, "did you mean `path`?"),
    "unknown key at the top": ("publish:", "publsh:", "inventory/unknown-key", 10, "did you mean `publish`?"),
    "unknown service": ("service: service2", "service: servce2", "inventory/unknown-service", 22, "`service2`?"),
    "address twice": ("10.77.0.31", "10.77.0.21", "inventory/address-taken", 22, "another"),
    "address outside": ("10.77.0.31", "10.78.0.31", "inventory/address-outside", 22, "10.77.0.2 to 10.77.0.254"),
    "not an address": ("10.77.0.31", "10.77.0.310", "inventory/bad-value", 22, "IPv4"),
    "shell syntax in a name": ("service1-1:", "'a$(reboot)':", "inventory/bad-name", 21, "lower-case letters"),
    "shell syntax in a path": ("/service/2", "'/a;reboot'", "inventory/bad-value", 17, "pattern"),
    "newline in a name": ("service1-1:", '"a\\nb":', "inventory/bad-name", 21, "lower-case letters"),
    "no YAML": ("hosts:", "hosts: [", "inventory/broken-yaml", 21, "mend the line"),
    "tab": ("  service1:", "\tservice1:", "inventory/broken-yaml", 16, "mend the line"),
    "name twice": ("service2-1:", "service1-1:", "inventory/broken-yaml", 22, "mend the line"),
    "port no number": ("http_port: 8080", "http_port: web", "inventory/bad-value", 9, "integer"),
    "port twice": ("http_port: 8080", "http_port: 8443", "inventory/port-taken", 9, "another port"),
    "the admin port": ("https_port: 8443", "https_port: 8001", "inventory/port-taken", 9, "another port"),
    "a network without room": ("10.77.0.0/24", "10.77.0.0/31", "inventory/bad-value", 13, "/29 or larger"),
    "the health check's path": ("path: /service/2", "path: /healthz", "inventory/bad-value", 17, "health check's"),
    "a path that is taken out": ("path: /service/2", "path: /a/../b", "inventory/bad-value", 17, "taken out"),
    "path twice": ("path: /service/2", "path: /service/1", "inventory/path-taken", 17, "another path"),
    "no edge": ("role: edge", "service: service1", "inventory/no-edge", 19, "role: edge"),
    "neither edge nor service": ("role: edge, ", "", "inventory/no-role", 20, "role: edge"),
    "unknown provider": ("provider: auto", "provider: vagrnt", "inventory/bad-value", 3, "'nspawn'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_problem_at_its_line_with_a_way_out(mistake: str) -> None:
    old, new, code, line, hint = MISTAKES[mistake]
    assert old in SHIPPED
    with pytest.raises(Failed) as failed:
        parse(SHIPPED.replace(old, new, 1), "inventory.yaml", seed="")
    problems = failed.value.problems
    meant = [p for p in problems if p.code == code and p.at.split("  ")[0].split(":")[1] == str(line)]
    assert any(hint in p.hint for p in meant), "\n".join(map(str, problems))


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = SHIPPED.replace("10.77.0.31", "10.77.0.21").replace("/service/2", "/service/1")
    text = text.replace("http_port: 8080", "http_port: 8443")
    with pytest.raises(Failed) as failed:
        parse(text, "inventory.yaml", seed="")
    assert [p.code for p in failed.value.problems] == [
        "inventory/port-taken",
        "inventory/path-taken",
        "inventory/address-taken",
    ]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("", ["inventory/bad-value"]),
        ("[]", ["inventory/bad-value"]),
        ("just words", ["inventory/bad-value"]),
        ("name: x", ["inventory/missing-key", "inventory/missing-key"]),
        ("hosts: {}\nservices: {}\nname: x", ["inventory/bad-value", "inventory/bad-value"]),
        ("\x00", ["inventory/broken-yaml"]),
    ],
)
def test_what_is_no_inventory_at_all_is_a_problem_too(text: str, codes: list[str]) -> None:
    with pytest.raises(Failed) as failed:
        parse(text, "inventory.yaml", seed="")
    assert [p.code for p in failed.value.problems] == codes
    assert all(p.at and p.hint for p in failed.value.problems)


def test_more_services_than_a_front_can_watch_are_refused() -> None:
    more = "".join(f"  s{n}: {{path: /s/{n}}}\n" for n in range(MAX_SERVICES - 2))
    parse(SHIPPED.replace("services:\n", f"services:\n{more}"), "inventory.yaml", seed="")
    with pytest.raises(Failed) as failed:
        parse(SHIPPED.replace("services:\n", f"services:\n{more}  one: {{path: /one}}\n"), "inventory.yaml", seed="")
    [problem] = failed.value.problems
    assert (problem.code, problem.at) == ("inventory/bad-value", "inventory.yaml:15:1  services")
    assert "at most 100" in problem.hint


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Failed) as failed:
        load(tmp_path / "inventory.yaml")
    assert failed.value.problems[0].code == "inventory/unreadable"


def test_the_shipped_inventory_is_the_sandbox() -> None:
    mesh = parse(SHIPPED, "inventory.yaml", seed="here")
    assert [h.name for h in mesh.edges] == ["front-envoy"]
    assert {s.path for s in mesh.services.values()} == {"/service/1", "/service/2"}
    assert (mesh.publish.http, mesh.publish.https, mesh.publish.admin) == (8080, 8443, 8001)
    assert mesh.provider == "auto"


def test_two_checkouts_have_two_identifiers() -> None:
    here, there = (parse(SHIPPED, "inventory.yaml", seed=seed).identifier for seed in ("/a", "/b"))
    assert here != there


def test_settings_of_a_host_win_over_those_of_all_hosts() -> None:
    text = SHIPPED + "ssh: {user: deploy, port: 2222}\n"
    text = text.replace("address: 10.77.0.31", "address: 10.77.0.31, ssh: {port: 22}")
    mesh = parse(text, "inventory.yaml", seed="")
    assert [(h.ssh.user, h.ssh.port) for h in mesh.hosts.values()] == [
        ("deploy", 2222),
        ("deploy", 2222),
        ("deploy", 22),
    ]


def test_places_are_looked_for_only_when_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def compose(*_: object) -> None:
        raise AssertionError("read once more")

    monkeypatch.setattr(YAML, "compose", compose)
    assert parse(SHIPPED, "inventory.yaml", seed="test").hosts
    with pytest.raises(AssertionError, match="read once more"):
        parse(SHIPPED.replace("10.77.0.31", "10.77.0.21"), "inventory.yaml", seed="test")
