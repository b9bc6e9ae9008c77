import pytest

from resilient_ai.cli import _files
from resilient_ai.cli._files import locked, private, replacing


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


@pytest.mark.parametrize("name", ["nowhere/file", "folder"])
def test_an_error_names_the_file_that_was_asked_for(tmp_path, name):
    """And not the draft, which nobody has heard of."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"\[Errno") as caught, replacing(tmp_path / name) as file:
        file.write(b"new")
    assert (caught.value.filename, caught.value.filename2) == (str(tmp_path / name), None)
    assert [left.name for left in tmp_path.iterdir()] == ["folder"]


def test_two_who_replace_the_same_file_do_not_meet(tmp_path):
    """Each writes a file of its own that nobody else can read, and both are whole; the last one stays, and no draft."""
    path = tmp_path / "file"
    with replacing(path) as first:
        first.write(b"first")
        with replacing(path) as second:
            second.write(b"second")
            assert {draft.stat().st_mode & 0o777 for draft in tmp_path.iterdir()} == {0o600}
        assert path.read_bytes() == b"second"
    assert [(left.name, left.read_bytes()) for left in tmp_path.iterdir()] == [("file", b"first")]


def test_what_is_not_finished_replaces_nothing(tmp_path):
    """After an error the old file is there, and the new one is not."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert [(left.name, left.read_bytes()) for left in tmp_path.iterdir()] == [("file", b"old")]
