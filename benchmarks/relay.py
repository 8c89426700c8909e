"""A relay between two networks that holds back every packet. A program; runs until it is killed.

Packets are whole, so TCP's own round trips (its handshake, its slow start) are as far as on a real line.
It is given two open `/dev/net/tun`, each opened in the network namespace of one end.
"""

import collections
import fcntl
import os
import select
import struct
import sys
import time

INTERFACE = "relay"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PACKET_BYTES = 65536


def attach(descriptor: int) -> None:
    """Make the interface of an open `/dev/net/tun`; it goes with the descriptor."""
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", INTERFACE.encode(), IFF_TUN | IFF_NO_PI))
    os.set_blocking(descriptor, False)


def relay(ends: tuple[int, int], delay_s: float) -> None:
    """Hand on what arrives at one end to the other, `delay_s` later."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    held: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        wait_s = max(held[0][0] - time.monotonic(), 0) if held else None
        for end in select.select(ends, [], [], wait_s)[0]:
            held.append((time.monotonic() + delay_s, other[end], os.read(end, PACKET_BYTES)))
        while held and held[0][0] <= time.monotonic():
            _, end, packet = held.popleft()
            os.write(end, packet)


def main() -> None:
    """Relay between the two descriptors that the command line names, with its delay in seconds."""
    ends = (int(sys.argv[1]), int(sys.argv[2]))
    for end in ends:
        attach(end)
    print("ready", flush=True)
    relay(ends, float(sys.argv[3]))


if __name__ == "__main__":
    main()
