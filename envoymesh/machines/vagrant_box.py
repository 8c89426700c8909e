"""A local Vagrant box from Debian packages, for where none can be downloaded."""

import json
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from envoymesh.machines import image
from envoymesh.machines.base import Progress
from envoymesh.problems import Failed, Problem

INSECURE_KEY = "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key"  # noqa: E501
"""Known to all the world: what every box lets in until Vagrant replaces it, at the first boot."""


def _file(path: str, *lines: str, mode: str = "0644") -> str:
    """Return a script that writes a file of the image."""
    words = " ".join(f"'{line}'" for line in lines)
    return f'install -D -m {mode} /dev/null "$1{path}" && printf "%s\\n" {words} > "$1{path}"'


UNUSED = (
    *("getty.target", "systemd-logind.service", "systemd-networkd-wait-online.service", "systemd-binfmt.service"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service"),
)
"""What nobody needs in a machine that is logged in to over SSH alone; together a third of an emulated boot."""

RECIPE = image.Recipe(
    name="vagrant",
    packages=(
        *("linux-image-cloud-amd64", "initramfs-tools", "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo"),
        *("bash", "procps", "iproute2", "curl", "ca-certificates", "python3"),
    ),
    customise=(
        # Only what such a disk needs to be found: a small initrd is read and unpacked sooner.
        _file("/etc/initramfs-tools/conf.d/box", "MODULES=list", "COMPRESS=gzip", "RESUME=none"),
        _file("/etc/initramfs-tools/modules", "virtio_pci", "virtio_blk", "ext4"),
        'chroot "$1" update-initramfs -u',
        # The root file system is mounted already: an entry for it would have systemd wait for udev.
        ': > "$1"/etc/fstab',
        # The link by which Vagrant finds the machine; it configures the other ones itself.
        _file(
            "/etc/systemd/network/10-eth0.network",
            *("[Match]", "Name=eth0", "[Network]", "DHCP=ipv4", "LinkLocalAddressing=no", "IPv6AcceptRA=no"),
        ),
        # Identity is made per machine; there is no name server to wait for. VERBOSE logs the start of each
        # command, so that executions can be counted.
        'rm -f "$1"/etc/ssh/ssh_host_*; : > "$1"/etc/machine-id; : > "$1"/etc/resolv.conf; : > "$1"/etc/default/locale',
        _file("/etc/hosts", "127.0.0.1 localhost", "::1 localhost ip6-localhost"),
        _file(
            "/etc/ssh/sshd_config.d/box.conf",
            *("HostKey /etc/ssh/ssh_host_ed25519_key", "UseDNS no", "LogLevel VERBOSE"),
        ),
        _file(
            "/etc/systemd/system/ssh.service.d/key.conf",
            "[Service]",
            "ExecStartPre=",
            'ExecStartPre=/bin/sh -c "cd /etc/ssh; [ -s ssh_host_ed25519_key ] ||'
            ' ssh-keygen -q -t ed25519 -N \\"\\" -f ssh_host_ed25519_key"',
        ),
        'chroot "$1" useradd --create-home --shell /bin/bash vagrant',
        _file("/etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL", mode="0440"),
        _file("/home/vagrant/.ssh/authorized_keys", INSECURE_KEY, mode="0600"),
        'chroot "$1" chown -R vagrant: /home/vagrant; chmod 0700 "$1"/home/vagrant/.ssh',
        'chroot "$1" systemctl --quiet disable ssh.socket || true;'
        ' chroot "$1" systemctl --quiet enable ssh.service systemd-networkd.service;'
        f' chroot "$1" systemctl --quiet mask {" ".join(UNUSED)}',
    ),
)

DISK_GIB = 4
BOOT_AT, BOOT_MIB = 1 << 20, 63
"""The first partition: what the boot loader reads. The root file system has the rest."""

BOOT = """\
DEFAULT linux
LABEL linux
  LINUX vmlinuz
  INITRD initrd
  APPEND root=/dev/vda2 rw net.ifnames=0 console=ttyS0 quiet
"""

VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.vm.guest = :debian # without this Vagrant tries one guest after the other
end
"""

TOOLS = ("vagrant", "tar", "mke2fs", "qemu-img", "syslinux", "mkfs.fat", "mcopy")
PACKAGES = {
    "vagrant": "vagrant-libvirt",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "mkfs.fat": "dosfstools",
    "mcopy": "mtools",
    "mbr.bin": "syslinux",
}

MBR = (Path("/usr/lib/SYSLINUX/mbr.bin"), Path("/usr/lib/syslinux/mbr/mbr.bin"))
"""Where Debian's packages `syslinux` and `syslinux-common` have the program that starts a partition."""


def name() -> str:
    """Return the name of the box."""
    return f"envoymesh/{image.release()}"


def build(progress: Progress) -> str:
    """Build the box and add it to Vagrant's, unless it is there; return its name.

    Raises:
        Failed: a tool is missing, no root, or the build failed.
    """
    if _installed() == RECIPE.digest:
        return name()
    _require()
    tar = image.root_tar(RECIPE, progress)
    with tempfile.TemporaryDirectory(prefix="vagrant-box-", dir=image.cache_dir()) as work:
        folder = Path(work)
        progress("", "making its disk")
        _make_disk(tar, folder)
        _pack(folder)
        progress("", "adding it to Vagrant's boxes")
        _run("vagrant", "box", "add", "--force", "--name", name(), str(folder / "box"))
    return name()


def _installed() -> str:
    """Return the digest of the recipe of the box that Vagrant has, or an empty string."""
    home = Path(os.environ.get("VAGRANT_HOME") or Path.home() / ".vagrant.d")
    metadata = home / "boxes" / name().replace("/", "-VAGRANTSLASH-") / "0" / "libvirt" / "metadata.json"
    return str(json.loads(metadata.read_text()).get("recipe", "")) if metadata.exists() else ""


def _require() -> None:
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    absent += [] if any(path.exists() for path in MBR) else ["mbr.bin"]
    if absent:
        packages = sorted({PACKAGES.get(tool, tool) for tool in absent})
        raise Failed(_cannot(f"this box has no {', '.join(absent)}", f"apt-get install {' '.join(packages)}"))
    if os.geteuid() != 0:
        raise Failed(_cannot("a box's files belong to root, which takes root to write", "sudo ./mesh vagrant-box"))
    if platform.machine() != "x86_64":
        raise Failed(_cannot(f"the box is built for x86_64 only, not for {platform.machine()}", "choose a public box"))


def _cannot(what: str, hint: str) -> Problem:
    return Problem(code="machines/tool-missing", what=what, now="nothing was changed", hint=hint)


def _make_disk(tar: Path, folder: Path) -> None:
    """Make `folder/box.img`: a disk that starts by itself, with the files of `tar`."""
    root, disk = folder / "root", folder / "disk.raw"
    root.mkdir()
    _run("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(tar), "-C", str(root))
    root_at = BOOT_AT + (BOOT_MIB << 20)
    size = DISK_GIB << 30
    with disk.open("wb") as file:
        file.truncate(size)
        file.write(_master_boot_record(root_at, size))
    _run("mkfs.fat", "-F", "16", f"--offset={BOOT_AT >> 9}", str(disk), str(BOOT_MIB << 10))
    (folder / "syslinux.cfg").write_text(BOOT)
    for source, target in ((root / "vmlinuz", "vmlinuz"), (root / "initrd.img", "initrd")):
        _copy_to_boot(disk, root / source.readlink(), target)
    _copy_to_boot(disk, folder / "syslinux.cfg", "syslinux.cfg")
    _run("syslinux", "--offset", str(BOOT_AT), "--install", str(disk))
    _run(
        *("mke2fs", "-q", "-t", "ext4", "-F", "-m", "0", "-d", str(root), "-E", f"offset={root_at}"),
        *(str(disk), f"{(size - root_at) >> 10}k"),
    )
    _run("qemu-img", "convert", "-O", "qcow2", str(disk), str(folder / "box.img"))


def _master_boot_record(root_at: int, size: int) -> bytes:
    """Return the first sector: a program that starts the active partition, and the two partitions."""

    def partition(active: int, kind: int, start: int, end: int) -> bytes:
        return struct.pack("<B3xB3xII", active, kind, start >> 9, (end - start) >> 9)

    program = next(path for path in MBR if path.exists()).read_bytes()[:440]
    table = partition(0x80, 0x0E, BOOT_AT, root_at) + partition(0, 0x83, root_at, size)
    return program.ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def _copy_to_boot(disk: Path, source: Path, target: str) -> None:
    _run("mcopy", "-i", f"{disk}@@{BOOT_AT}", str(source), f"::{target}")


def _pack(folder: Path) -> None:
    """Make `folder/box`: an archive as Vagrant takes it, not compressed, as it goes nowhere."""
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIB, "recipe": RECIPE.digest}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    (folder / "Vagrantfile").write_text(VAGRANTFILE)
    _run("tar", "-C", str(folder), "-cf", str(folder / "box"), "metadata.json", "Vagrantfile", "box.img")


def _run(*command: str) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(_failed(command, (done.stdout + done.stderr).splitlines()))


def _failed(command: Sequence[str], lines: Sequence[str]) -> Problem:
    return Problem(
        code="machines/image",
        what="the Vagrant box could not be built",
        at=" ".join(command[:2]),
        saw=tuple(lines[-10:]),
        now="the box that was there before, if any, is still there",
        hint="see whether the disk is full: df -h",
    )
