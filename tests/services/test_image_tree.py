"""The file tree of a small image."""

from __future__ import annotations

import io
import tarfile

from devservices.image_tree import Tree


def members(tree: Tree) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tree.archive())) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_everything_is_roots_and_tmp_is_everybodys() -> None:
    found = members(Tree())
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}
    assert found["tmp"].mode == 0o1777
    assert found["etc/passwd"].isfile()


def test_folders_above_a_file_are_made_and_come_first() -> None:
    tree = Tree()
    tree.file("/deep/er/file", b"x", 0o644)
    names = list(members(tree))
    assert names.index("deep") < names.index("deep/er") < names.index("deep/er/file")


def test_a_program_brings_its_libraries_and_its_loader() -> None:
    tree = Tree()
    tree.program("/bin/sh", "/bin/sh")
    found = members(tree)
    assert found["bin/sh"].mode & 0o111
    assert any(name.rpartition("/")[2].startswith("ld-") for name in found)
    assert any("libc" in name for name in found)


def test_a_link_points_where_it_was_told() -> None:
    tree = Tree()
    tree.link("/bin/ls", "busybox")
    link = members(tree)["bin/ls"]
    assert link.issym()
    assert link.linkname == "busybox"
