"""Releases of the application, for tests: each tells its name in a header, and is as the project's own but for that."""

import shutil
from pathlib import Path

from tests.layers import ROOT

HEALTH = "    async def health(_: web.Request) -> web.Response:\n"


def release(folder: Path, name: str, *, health: str = "", start: str = "") -> Path:
    """Make a release that waits for nobody when it is stopped; return its folder.

    Args:
        folder: where its folder is made.
        name: its name.
        health: a statement for its health check, which has a `request`.
        start: a statement for its start.
    """
    package = folder / name
    shutil.copytree(ROOT / "service", package, ignore=shutil.ignore_patterns("__pycache__"))
    main, app = package / "__main__.py", package / "app.py"
    main.write_text(main.read_text().replace("\nmain()", f"\n{start or 'pass'}\nmain()"))
    text = app.read_text()
    for old, new in (
        ("SHUTDOWN_S = 15", "SHUTDOWN_S = 0.1"),
        ("web.Response(text=body, ", f'web.Response(text=body, headers={{"release": "{name}"}}, '),
        (HEALTH, f"{HEALTH.replace('_:', 'request:')}        {health or 'pass'}\n"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    app.write_text(text)
    return package
