"""Inventory in, Envoy's files out: compared with what is expected, and accepted by Envoy.

What is expected lies beside each inventory, by host. `--update-golden` writes it anew; look at the difference.
"""

from pathlib import Path
from typing import Any

import pytest

from envoymesh.resources import File
from roles.common import PROGRAMS
from roles.render import parsed
from tests.golden.conftest import Validate
from tests.rendering import desired_of, files_of, mesh_of, validation_of

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/inventory.yaml"))
by_case = pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)


def rendered(case: Path) -> dict[str, str]:
    """Return all that an inventory decides but certificates and keys, by host and the last parts of their path."""
    return {
        f"{host}/{shown(file)}": file.content.decode()
        for host, resources in desired_of((case / "inventory.yaml").read_text()).items()
        for file in files_of(resources).values()
        if not file.secret and not file.path.startswith(PROGRAMS) and not file.path.endswith(".pem")
    }


def shown(file: File) -> str:
    return file.path.removeprefix("/etc/envoymesh/").removeprefix("/etc/systemd/system/")


def expected(case: Path) -> dict[str, str]:
    files = (path for path in case.rglob("*") if path.is_file() and path.parent != case)
    return {path.relative_to(case).as_posix(): path.read_text() for path in files}


def meaning(name: str, text: str) -> Any:
    """Return what a file says: a comment in YAML changes its version and nothing else."""
    if not name.endswith(".yaml"):
        return [line for line in text.splitlines() if not line.startswith("Environment=ENVOYMESH_STAMP=")]
    data = parsed(text)
    data.pop("version_info", None)
    return data


@by_case
def test_what_is_rendered_is_what_is_expected(case: Path, pytestconfig: pytest.Config) -> None:
    files = rendered(case)
    if pytestconfig.getoption("--update-golden"):
        for name in expected(case).keys() - files.keys():
            (case / name).unlink()
        for name, text in files.items():
            (case / name).parent.mkdir(parents=True, exist_ok=True)
            (case / name).write_text(text)
    kept = expected(case)
    assert sorted(kept) == sorted(files), "files that nothing renders, or that nobody expects"
    for name, text in files.items():
        assert meaning(name, kept[name]) == meaning(name, text), name


@by_case
def test_envoy_accepts_what_is_rendered(case: Path, validate: Validate) -> None:
    text = (case / "inventory.yaml").read_text()
    for host, resources in desired_of(text).items():
        judged = validate(validation_of(resources).content(), mesh_of(text).envoy_version)
        assert judged.returncode == 0, f"{host}: {judged.stderr[-2000:]}"
        said = [line for line in judged.stderr.splitlines() if "][warning]" in line or "][error]" in line]
        assert not said, f"{host}: deprecated or dubious"
