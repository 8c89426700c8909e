"""One libvirt for all tests of this folder, which run inside its namespaces; one mesh, and a box for its machines."""

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from envoymesh.machines import image, nspawn, vagrant_box
from envoymesh.model.releases import RELEASES
from envoymesh.model.secrets import KeyPair, Secrets
from envoymesh.resources import Artifact, Platform
from envoymesh.run.artifacts import blob_for
from envoymesh.run.releases import PROJECT, package_in
from roles import desired
from tests.labs import quiet, small_mesh
from tests.meshes import TestMesh
from tests.vagrant.libvirt_namespace import libvirt_namespace


@pytest.fixture(scope="session")
def box() -> str:
    """Return the name of the local box; it is built from packages, which takes the box's own network."""
    return vagrant_box.build(quiet)


@pytest.fixture(scope="session")
def artifacts() -> None:
    """What the machines receive is fetched beforehand: in the namespaces there is no way out."""
    python = (image.root_directory(nspawn.RECIPE, quiet) / "usr/bin/python3").readlink().name
    version = python.removeprefix("python").split(".")
    platform = Platform(os.uname().machine, (2, 31), (int(version[0]), int(version[1])))
    for mesh in (replace(small_mesh(), envoy_version=version) for version in RELEASES):
        secrets = Secrets({edge.name: KeyPair(b"", b"") for edge in mesh.edges}, b"")
        releases = dict.fromkeys(mesh.services, package_in(PROJECT))
        wanted = desired(mesh, secrets, releases, list(mesh.hosts.values()))
        for resource in chain.from_iterable(wanted.values()):
            if isinstance(resource, Artifact):
                blob_for(resource.source, platform, image.cache_dir())


@pytest.fixture(scope="session", autouse=True)
def libvirt(box: str, artifacts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Move this process, and so all that it starts, to where a libvirt of its own runs; return its directory."""
    folder = tmp_path_factory.mktemp("libvirt")
    with libvirt_namespace(folder):
        yield folder


@pytest.fixture(scope="session")
def mesh(box: str, libvirt: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestMesh]:
    """One mesh for all tests: virtual machines are slow to boot. It is not up before a test says so."""
    mesh = TestMesh(tmp_path_factory.mktemp("mesh"), provider="vagrant", network=85, machines=f", box: {box}")
    try:
        yield mesh
    finally:
        mesh.run("down")
