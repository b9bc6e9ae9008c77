import pytest

from resilient_ai.cli import _files
from resilient_ai.cli._files import locked, private


def test_one_at_a_time_has_the_lock(tmp_path):
    """The lock is taken as long as somebody is inside, and free afterwards."""
    with locked(tmp_path / "lock") as first, locked(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with locked(tmp_path / "lock") as again:
        assert again


@pytest.mark.parametrize("replaced", [True, False])
def test_a_lock_that_was_removed_meanwhile_is_none(tmp_path, monkeypatch, replaced):
    """Whoever waits for a file that its holder removes must not believe to be alone with the next one."""
    path = tmp_path / "lock"

    def removed(_file):
        path.unlink()
        if replaced:
            path.touch()
        return True

    monkeypatch.setattr(_files, "_try_lock", removed)
    with locked(path) as alone:
        assert not alone


def test_a_private_file_follows_no_link(tmp_path):
    """A link that somebody has put there is not written through."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"), private(tmp_path / "link"):
        pass
    assert not (tmp_path / "elsewhere").exists()
