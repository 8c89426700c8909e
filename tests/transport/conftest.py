"""A home of its own for every test, and a server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from envoymesh.transport import prompt
from tests.transport.sshd import Sshd, running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the tester's configuration, keys, agent and terminal out of the tests."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(prompt, "TERMINAL", str(folder / "no-terminal"))
    return folder


@pytest.fixture
def known_hosts(tmp_path: Path) -> Path:
    """Where the mesh's known_hosts will be."""
    return tmp_path / "mesh" / "known_hosts"


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Sshd]:
    """A server for all the tests that only log in."""
    with running() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Sshd]:
    """A server of the test's own, to change and to count logins at."""
    with running() as server:
        yield server
