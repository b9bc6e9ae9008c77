"""Directories and files for one user alone."""

import fcntl
import os
import stat
import subprocess
import sys

import pytest

from resilient_ai.stores._private import Unsafe, private_directory, private_file, secret


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_for_one_user(tmp_path):
    """It is 0700 whatever the umask."""
    private_directory(tmp_path / "a" / "b")
    assert mode(tmp_path / "a" / "b") == 0o700


@pytest.mark.parametrize("rights", [0o770, 0o702, 0o777])
def test_a_directory_that_others_may_change_is_refused(tmp_path, rights):
    """The complaint names the rights."""
    tmp_path.chmod(rights)
    with pytest.raises(Unsafe, match=f"{rights:04o}"):
        private_directory(tmp_path)


def test_a_link_is_not_a_directory(tmp_path):
    """Where it leads does not matter."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(Unsafe, match="not a directory"):
        private_directory(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path):
    """The complaint names the user."""
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(Unsafe, match="user 12345"):
        private_directory(tmp_path)


def test_a_file_is_made_for_one_user(tmp_path):
    """A new file is 0600, and an old one becomes so."""
    path = tmp_path / "f"
    private_file(path)
    assert mode(path) == 0o600
    path.write_bytes(b"kept")
    path.chmod(0o644)
    private_file(path)
    assert (mode(path), path.read_bytes()) == (0o600, b"kept")


def test_a_file_that_is_a_link_is_refused(tmp_path):
    """Nothing is created where the link leads."""
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(Unsafe, match="symbolic link"):
        private_file(tmp_path / "link")
    assert not (tmp_path / "target").exists()


def test_a_file_in_use_keeps_its_locks(tmp_path):
    """What this process has locked is still locked for others; POSIX lifts all locks when any descriptor is closed."""
    path = tmp_path / "file"
    private_file(path)
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.chmod(0o644)
        private_file(path)
        code = f"import fcntl; fcntl.lockf(open({str(path)!r}, 'r+b'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert "BlockingIOError" in other.stderr
    assert mode(path) == 0o600


def test_a_secret_is_made_once(tmp_path):
    """32 bytes, for this user alone, the same every time, and no draft is left."""
    path = tmp_path / "s.key"
    first = secret(path)
    assert (len(first), secret(path), mode(path), list(tmp_path.iterdir())) == (32, first, 0o600, [path])


def test_a_secret_that_others_can_read_is_none(tmp_path):
    """It is refused, not repaired: it may be known already."""
    path = tmp_path / "s.key"
    secret(path)
    path.chmod(0o640)
    with pytest.raises(Unsafe, match="read by others"):
        secret(path)


def test_a_secret_of_the_wrong_size_is_none(tmp_path):
    """An empty file is not a secret."""
    path = tmp_path / "s.key"
    private_file(path)
    with pytest.raises(Unsafe, match="has 0 bytes"):
        secret(path)


def test_a_secret_behind_a_link_is_none(tmp_path):
    """A link, even a dangling one, is refused."""
    (tmp_path / "s.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unsafe, match="not a file"):
        secret(tmp_path / "s.key")
