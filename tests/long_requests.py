"""Clients with long answers and slow uploads, as a program: `python -m tests.long_requests URL SECONDS STOP LOG`.

Each request is checked to its last byte. They go on for so many seconds, or until the file STOP is there. Logs a line
for each: begun (microseconds since 1970), taken (microseconds), what was wrong (nothing when it was good).
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp

CLIENTS = 8
"""Of each kind; they begin one after the other."""

LONG_S = 5.0
STREAM = "".join(f"line {n} of 10\n" for n in range(1, 11))
PIECES, PIECE = 20, b"x" * 8192


async def upload() -> AsyncIterator[bytes]:
    """Yield the pieces of an upload, slowly."""
    for _ in range(PIECES):
        yield PIECE
        await asyncio.sleep(LONG_S / PIECES)


async def stream(session: aiohttp.ClientSession, url: str) -> str:
    """Return what was wrong with a streamed answer."""
    async with session.get(f"{url}/stream") as answer:
        text = await answer.text()
        return "" if (answer.status, text) == (200, STREAM) else _wrong(answer.status)


async def slow_upload(session: aiohttp.ClientSession, url: str) -> str:
    """Return what was wrong with an upload."""
    async with session.post(f"{url}/upload", data=upload()) as answer:
        text = await answer.text()
        return "" if (answer.status, text) == (200, f"{PIECES * len(PIECE)}\n") else _wrong(answer.status)


def _wrong(status: int) -> str:
    return "body" if status == 200 else str(status)


async def client(number: int, url: str, goes_on: Callable[[], bool], log: list[str]) -> None:
    """Ask one after the other, while it goes on."""
    ask = (stream, slow_upload)[number % 2]
    await asyncio.sleep(LONG_S * number / (2 * CLIENTS))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        while goes_on():
            begun = time.time()
            try:
                kind = await ask(session, url)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                kind = type(error).__name__
                await asyncio.sleep(0.5)
            log.append(f"{begun * 1e6:.0f} {(time.time() - begun) * 1e6:.0f} {kind and f'{ask.__name__}:{kind}'}")


async def main(url: str, seconds: float, stop: Path, path: Path) -> None:
    """Run all clients."""
    print("begun", flush=True)
    log: list[str] = []
    until = time.time() + seconds

    def goes_on() -> bool:
        return time.time() < until and not stop.exists()

    await asyncio.gather(*(client(n, url, goes_on, log) for n in range(2 * CLIENTS)))
    path.write_text("".join(f"{line}\n" for line in log))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
