"""Whether KVM runs guests. That /dev/kvm exists is not enough where the box is a virtual machine itself."""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

DEVICE = Path("/dev/kvm")

WITHIN_S = 3

PROBE = bytes.fromhex(
    "fa 31c0 8ed8 8ec0 8ed0 bc007c"  # no interrupts, segments at 0, a stack below this code
    "66bf00100000 0f22df 6631c0 b9000c fc f366ab"  # three empty page tables at 0x1000
    "66c706001003200000 66c706002003300000 66c706003083000000"  # they map the first 2 MiB to themselves
    "66b8a0000000 0f22e0 66b9800000c0 0f32 0d0001 0f30"  # 64-bit mode as soon as paging is on
    "0f20c0 660d01000080 0f22c0"  # paging on
    "0f0116807c ea667c0800"  # the segments at 0x7c80; on in a 64-bit one, at 0x7c66
    "66baf400 b02a ee f4"  # write 42 to the port that ends QEMU
    "9090 0000000000000000 00000000009a2000 0f00707c0000"  # the segments
)
"""A boot sector that does what every kernel does first: it goes to 64-bit mode with paging."""

DONE = 42 << 1 | 1
"""What QEMU exits with when its guest has written 42."""


def trouble() -> str:
    """Return why KVM cannot run machines on this box, in words, or an empty string. Takes at most 3 s."""
    qemu = f"qemu-system-{platform.machine()}"
    if not DEVICE.exists():
        return f"this box has no {DEVICE}"
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"this user may not use {DEVICE}"
    if not shutil.which(qemu):
        return f"this box has no {qemu}"
    if platform.machine() != "x86_64":
        return ""  # The probe is written for x86_64; elsewhere the device is not there without hardware for it.
    return "" if _boots(qemu) else f"{DEVICE} is there, but a guest does not get to 64-bit mode with it"


def _boots(qemu: str) -> bool:
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(PROBE.ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()
        command = [
            *(qemu, "-accel", "kvm", "-display", "none", "-nodefaults", "-no-reboot", "-m", "16"),
            *("-device", "isa-debug-exit,iobase=0xf4,iosize=1", "-drive", f"file={disk.name},format=raw,if=ide"),
        ]
        try:
            return subprocess.run(command, capture_output=True, check=False, timeout=WITHIN_S).returncode == DONE
        except subprocess.TimeoutExpired:
            return False
