"""The unit layer's guard refuses what it says it refuses."""

import socket
import subprocess
import time

import pytest

from tests.unit.conftest import NotPure


def test_process_socket_and_sleep_are_refused() -> None:
    with pytest.raises(NotPure):
        subprocess.run(["true"], check=False)
    with pytest.raises(NotPure):
        time.sleep(0)
    with pytest.raises(NotPure), socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))
