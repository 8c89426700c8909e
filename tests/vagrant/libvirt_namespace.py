"""Lets a process run libvirt of its own: in network and mount namespaces that nothing outside takes part in."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

MOUNTS = """
set -eu
mount --make-rprivate /

# A device that is there but boots no guest would cost libvirt a minute per machine.
[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm

mkdir "$1/etc" "$1/lib" "$1/cache" "$1/run"
cp -R /etc/libvirt/. "$1/etc"
rm -rf "$1/etc/qemu/networks/autostart" "$1"/etc/qemu/networks/*.xml
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/lib" /var/lib/libvirt
mount --bind "$1/cache" /var/cache/libvirt
mkdir -p /run/libvirt
mount --bind "$1/run" /run/libvirt
mount -t tmpfs -o mode=1777 tmpfs /run/lock
cat >> /etc/libvirt/libvirtd.conf <<END
auth_unix_ro = "none"
auth_unix_rw = "none"
END
cat >> /etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
END
ip link set lo up
"""
"""Takes a directory for what libvirt writes."""

DAEMONS = ["sh", "-c", 'virtlogd & libvirtd > "$1" 2>&1; exit $?', "sh"]
"""The shell stays the first process of a namespace: what is orphaned in there is reaped by it, and ends with it."""


@contextmanager
def libvirt_namespace(folder: Path) -> Iterator[None]:
    """Move this process into new namespaces with a libvirt, and back.

    What it starts in between is in there too. Call it from the main thread: other threads stay where they are.

    Args:
        folder: an empty directory for all that libvirt writes, disks too.
    """
    with _namespaces():
        subprocess.run(["sh", "-c", MOUNTS, "sh", str(folder)], check=True)
        try:
            with _daemons(folder / "libvirtd.log"):
                yield
        finally:
            _end_all_in_here()


@contextmanager
def _namespaces() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    with contextlib.ExitStack() as stack:
        here = [os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")]
        for opened in here:
            stack.callback(os.close, opened)
        cwd = Path.cwd()
        _check(libc.unshare(CLONE_NEWNS | CLONE_NEWNET))
        try:
            yield
        finally:
            for opened in here:
                _check(libc.setns(opened, 0))
            os.chdir(cwd)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def _daemons(log: Path) -> Iterator[None]:
    namespace = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    daemons = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *namespace, *DAEMONS, str(log)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for_libvirt(daemons, log)
        yield
    finally:
        daemons.kill()
        daemons.wait()


def _wait_for_libvirt(daemons: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    asked = ["virsh", "--connect", "qemu:///system", "list"]
    while subprocess.run(asked, capture_output=True, check=False, timeout=120).returncode != 0:
        assert daemons.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def _end_all_in_here() -> None:
    """Kill every other process of this network namespace: it is ours alone."""
    ours = os.readlink("/proc/thread-self/ns/net")
    end = time.monotonic() + 60
    while others := [pid for pid in _processes(ours) if pid != os.getpid()]:
        assert time.monotonic() < end, f"these do not end: {others}"
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(namespace: str) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "ns/net") == namespace and " Z " not in (process / "stat").read_text():
                yield int(process.name)
