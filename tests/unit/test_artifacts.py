"""Packing: the same input gives the same bytes, and what is packed is what was asked for."""

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envoymesh.problems import Failed
from envoymesh.resources import Platform, Tree
from envoymesh.run.artifacts import _sha256_of, blob_for, gzip_of_member, packed_tree

PLATFORM = Platform("x86_64", (2, 36), (3, 11))
FILES = {"service/app.py": b"pass\n", "service/deep/er.py": b"", "top.py": b"x = 1\n"}


def test_a_tree_is_roots_with_fixed_modes_and_its_folders_come_first() -> None:
    with tarfile.open(fileobj=io.BytesIO(packed_tree(FILES)), mode="r:gz") as tar:
        entries = tar.getmembers()
        content = {e.name: tar.extractfile(e).read() for e in entries if e.isfile()}  # type: ignore[union-attr]
    assert content == FILES
    assert [e.name for e in entries if e.isdir()] == ["service", "service/deep"]
    assert [e.isdir() for e in entries] == sorted((e.isdir() for e in entries), reverse=True)
    assert {(e.uid, e.gid, e.mtime) for e in entries} == {(0, 0, 0)}
    assert {e.mode for e in entries if e.isfile()} == {0o644}
    assert {e.mode for e in entries if e.isdir()} == {0o755}


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    assert packed_tree(FILES) == packed_tree(dict(reversed(FILES.items())))
    assert packed_tree(FILES) != packed_tree({**FILES, "top.py": b"x = 2\n"})


def test_a_blob_is_made_once_and_names_its_own_digest(tmp_path: Path) -> None:
    blob = blob_for(Tree(FILES), PLATFORM, tmp_path)
    assert blob.path.read_bytes() == packed_tree(FILES)
    assert (blob.size, blob.sha256) == (blob.path.stat().st_size, hashlib.sha256(packed_tree(FILES)).hexdigest())
    before = blob.path.stat().st_mtime_ns
    assert blob_for(Tree(FILES), PLATFORM, tmp_path) == blob
    assert blob.path.stat().st_mtime_ns == before


def test_a_blob_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    blob = blob_for(Tree(FILES), PLATFORM, tmp_path)
    blob.path.write_bytes(b"x" * blob.size)
    _sha256_of.cache_clear()  # as in a later run
    assert blob_for(Tree(FILES), PLATFORM, tmp_path) == blob
    assert blob.path.read_bytes() == packed_tree(FILES)


def test_many_at_once_get_the_same_blob(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        blobs = list(pool.map(lambda _: blob_for(Tree(FILES), PLATFORM, tmp_path), range(8)))
    assert set(blobs) == {blobs[0]}
    assert len(list(tmp_path.rglob("*.gz"))) == 1


@pytest.mark.parametrize("content", [b"", b"short", os.urandom(100_000), b"envoy " * 100_000])
def test_a_member_of_a_zip_travels_as_it_is_compressed_there(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "x.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("first", b"something else")
        made.writestr("a/member", content)
    packed = gzip_of_member(archive, "a/member", hashlib.sha256(content).hexdigest())
    assert gzip.decompress(packed) == content
    with zipfile.ZipFile(archive) as made:
        assert len(packed) == made.getinfo("a/member").compress_size + 18


def test_a_member_with_another_digest_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("member", b"not what was pinned")
    with pytest.raises(Failed) as failed:
        gzip_of_member(archive, "member", "0" * 64)
    (problem,) = failed.value.problems
    assert problem.code == "artifact/digest-mismatch"
    assert "0" * 64 in problem.saw[0]
