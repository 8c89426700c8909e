"""A crowd of clients, as a program: `python -m tests.crowd ADDRESS PORT COUNT TEXT SECONDS`.

Opens COUNT connections, sends TEXT over each and nothing more, and holds them for so many seconds. Prints in the end,
as JSON, how many were `refused`, were `closed` by the other side meanwhile, and were `held`.
"""

import asyncio
import codecs
import json
import resource
import sys


async def client(address: str, port: int, text: bytes, until: asyncio.Event) -> str:
    """Return what became of one connection."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 10)
    except (OSError, TimeoutError):
        return "refused"
    try:
        writer.write(text)
        await writer.drain()
        closed = asyncio.create_task(reader.read())
        await asyncio.wait({closed, asyncio.create_task(until.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if not closed.done():
            return "held"
        closed.exception()  # whatever it was
        return "closed"
    except OSError:
        return "closed"
    finally:
        writer.close()


async def main(address: str, port: int, count: int, text: bytes, seconds: float) -> None:
    """Run the crowd."""
    until = asyncio.Event()
    clients = []
    for number in range(count):
        clients.append(asyncio.create_task(client(address, port, text, until)))
        if number % 100 == 99:
            await asyncio.sleep(0.01)
    await asyncio.sleep(seconds)
    until.set()
    became = await asyncio.gather(*clients)
    print(json.dumps({kind: became.count(kind) for kind in sorted(set(became))}))


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    asyncio.run(
        main(
            sys.argv[1],
            int(sys.argv[2]),
            int(sys.argv[3]),
            codecs.decode(sys.argv[4], "unicode_escape").encode(),
            float(sys.argv[5]),
        )
    )
