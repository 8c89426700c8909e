"""The floor: what any tool on Paramiko must do at least. A program; prints how long it took without its own start."""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import paramiko

SLICE = 256 * 1024
SLOWER_CIPHERS = ("aes128-ctr", "aes192-ctr", "aes256-ctr", "aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc")


def run(login: Mapping[str, Any], command: str, sent: Path | None) -> int:
    """Connect to one host and run one command, which is sent the file; return its exit status."""
    with paramiko.SSHClient() as client:
        client.load_host_keys(login["known_hosts"])
        client.connect(
            login["address"],
            username="root",
            key_filename=login["key"],
            allow_agent=False,
            look_for_keys=False,
            disabled_algorithms={"ciphers": SLOWER_CIPHERS},
        )
        channel = cast("paramiko.Transport", client.get_transport()).open_session()
        channel.exec_command(command)
        if sent is not None:
            with sent.open("rb") as file:
                while part := file.read(SLICE):
                    channel.sendall(part)
            channel.shutdown_write()
        while channel.recv(SLICE):
            pass
        return channel.recv_exit_status()


def main() -> int:
    """Run the command on all hosts at once; return the gravest exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("logins", type=Path, help="a JSON list of logins: address, key, known_hosts")
    parser.add_argument("command")
    parser.add_argument("--send", type=Path, help="a file for the command's standard input")
    given = parser.parse_args()
    began = time.monotonic()
    logins = json.loads(given.logins.read_text())
    with ThreadPoolExecutor(max_workers=len(logins)) as pool:
        statuses = list(pool.map(lambda login: run(login, given.command, given.send), logins))
    print(json.dumps({"inside_s": time.monotonic() - began}))
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
