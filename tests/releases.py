"""Releases of an application, for tests: each is a package of its own that says which one it is."""

import shutil
from pathlib import Path

from tests.layers import ROOT

PROGRAM = """\
import argparse, asyncio
from aiohttp import web

parser = argparse.ArgumentParser()
for name in ("listen", "port", "path", "health-path", "address"):
    parser.add_argument(f"--{{name}}", required=True)
args = parser.parse_args()
NAME = {name!r}

async def hello(request):
    if request.can_read_body:
        return web.Response(text=f"{{NAME}} {{len(await request.read())}}\\n")
    return web.Response(text=f"{{NAME}}\\n")

async def slow(request):
    answer = web.StreamResponse()
    await answer.prepare(request)
    for number in range(50):
        await answer.write(b"%d\\n" % number)
        await asyncio.sleep(0.1)
    await answer.write(f"{{NAME}}\\n".encode())
    return answer

async def health(request):
    {health}
    return web.Response(text="ok\\n")

app = web.Application(client_max_size=2**30)
app.add_routes([
    web.get(args.path, hello), web.post(args.path, hello), web.get(f"{{args.path}}/slow", slow),
    web.get(args.health_path, health),
])
{start}
"""

SERVES = "web.run_app(app, host=args.listen, port=int(args.port), shutdown_timeout=0.1, print=None)"
"""It waits for nobody when it is stopped."""


def release(folder: Path, name: str, *, health: str = "", start: str = SERVES) -> Path:
    """Make a release that answers with its name; `health` and `start` are what its health check and its start do."""
    package = folder / name
    package.mkdir()
    (package / "__main__.py").write_text(PROGRAM.format(name=name, health=health or "pass", start=start))
    shutil.copy(ROOT / "service" / "requirements.txt", package)
    return package
