"""Images are cached by what goes into them."""

from dataclasses import replace
from pathlib import Path

import pytest

from envoymesh.machines import image
from envoymesh.machines.image import Recipe

RECIPE = Recipe("base", ("bash", "curl"), ('touch "$1"/made',))


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, packages=("bash",)),
        replace(RECIPE, packages=("bash", "curl", "sudo")),
        replace(RECIPE, customise=()),
        Recipe("base", ("bash",), ("curl", 'touch "$1"/made')),
    ],
)
def test_every_change_of_a_recipe_is_another_image(other: Recipe) -> None:
    assert other.digest != RECIPE.digest


def test_the_same_recipe_is_the_same_image() -> None:
    assert Recipe("base", ("bash", "curl"), ('touch "$1"/made',)).digest == RECIPE.digest


def test_another_release_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = RECIPE.digest
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "noble"})
    assert image.release() == "noble"
    assert RECIPE.digest != before


def test_a_box_that_is_neither_debian_nor_ubuntu_builds_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "fedora", "VERSION_CODENAME": ""})
    assert image.release() == "bookworm"


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert image.cache_dir() == tmp_path / "envoymesh"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert image.cache_dir() == tmp_path / ".cache" / "envoymesh"


def test_a_missing_tool_comes_with_its_packages() -> None:
    problem = image.tool_missing(["ip", "nsenter", "setpriv"])
    assert problem.code == "machines/tool-missing"
    assert problem.hint == "apt-get install iproute2 util-linux"
