"""An application that fails, as a program for a host: `python3 -c CODE ADDRESS PORT`.

In the place of the real one it answers health checks with 200, and all else with 500.
"""

import asyncio
import sys


async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, and close."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = "200 OK" if b" /healthz " in head else "500 Internal Server Error"
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbad\n".encode())
    writer.close()


async def main(address: str, port: int) -> None:
    """Serve until it is ended."""
    server = await asyncio.start_server(client, address, port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
