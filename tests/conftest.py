"""Gives each test the layer of its folder, and runs the layers that the box can."""

import pytest
from hypothesis import settings

from tests.layers import FOLDERS, LAYERS, ROOT, all_required, missing

# A slow box is no defect. What CI tries is the same each time: it is there to find what a change has broken.
settings.register_profile("mesh", deadline=None, derandomize=all_required())
settings.load_profile("mesh")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what golden tests need to be told."""
    parser.addoption("--update-golden", action="store_true", help="write what is rendered now as what is expected")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with their layer and its timeout; quick layers first."""
    order = list(FOLDERS)
    for item in items:
        name = FOLDERS.get(_folder(item))
        if name is None:
            raise pytest.UsageError(f"{item.nodeid}: not in a folder of a layer; tests/layers.py has these: {order}")
        item.add_marker(name)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LAYERS[name].timeout_s))
    items.sort(key=lambda item: order.index(_folder(item)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a test whose layer cannot run here, before its fixtures are made."""
    name = FOLDERS[_folder(item)]
    if missing(name):
        reason = f"the layer `{name}` cannot run here: {missing(name)}"
        if all_required():
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]
