"""One mesh of three hosts for all tests here; every test leaves it as it found it."""

from collections.abc import Iterator

import pytest

from tests.meshes import TestMesh, up


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestMesh]:
    """The mesh itself, for tests that change nothing."""
    with up(tmp_path_factory.mktemp("lab"), provider="nspawn", network=81) as mesh:
        yield mesh


@pytest.fixture
def lab(running: TestMesh) -> Iterator[TestMesh]:
    """The mesh, converged; a test that changed it is repaired after, from the inventory as it was."""
    text = running.inventory.read_text()
    yield running
    if running.inventory.read_text() != text or running.run("plan", code=None).returncode != 0:
        running.inventory.write_text(text)
        running.run("up")
