"""The file that keeps what was fetched."""

import os
import stat
from dataclasses import replace

import orjson
import pytest

from resilient_ai.deepinfra.catalogue import Suspicion, catalogue
from resilient_ai.deepinfra.catalogue._live_file import Kept, load, save

NOW = 1_790_000_001.0
DOUBTS = (Suspicion(model="a/b", field="input_per_1m", value="10", reason="is too far"),)
KEPT = Kept(NOW - 0.5, {model.id: model for model in catalogue}, DOUBTS)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "catalogue.json"


def rewritten(path, **changes):
    document = orjson.loads(path.read_bytes()) | changes
    path.write_bytes(orjson.dumps(document))


def test_everything_comes_back_as_it_was(path):
    """Every field of every record, prices exactly."""
    save(path, KEPT)

    assert load(path, NOW) == KEPT


def test_the_file_is_of_this_user_alone(path):
    """And so is the folder, and no draft is left beside it."""
    save(path, KEPT)
    save(path, KEPT)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["catalogue.json"]


def test_no_file_is_nothing_to_complain_of(path, caplog):
    """It is the usual case."""
    assert load(path, NOW) is None
    assert caplog.records == []


def spoil(path, how):
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "changed":
        path.write_bytes(path.read_bytes().replace(b'"0.32"', b'"0.03"'))
    elif how == "foreign":
        path.write_bytes(b'{"some": "JSON"}')
    elif how == "list":
        path.write_bytes(b"[1]")
    elif how == "newer":
        rewritten(path, version=3)
    elif how == "without a digest":
        document = orjson.loads(path.read_bytes())
        del document["digest"]
        path.write_bytes(orjson.dumps(document))
    elif how == "link":
        path.rename(path.with_name("other"))
        path.symlink_to(path.with_name("other"))
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.chmod(0o666)


WAYS = [
    "empty",
    "cut",
    "changed",
    "foreign",
    "list",
    "newer",
    "without a digest",
    "link",
    "pipe",
    "folder",
    "open to others",
]


@pytest.mark.parametrize("how", WAYS)
def test_a_file_that_cannot_be_trusted_is_ignored_with_one_warning(path, caplog, how):
    """Whatever became of it, the packaged data still works."""
    save(path, KEPT)
    spoil(path, how)

    assert load(path, NOW) is None
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


@pytest.mark.parametrize("ahead", [0.0, 3600.0])
def test_a_clock_may_be_behind_by_an_hour(path, ahead):
    """The file may be another machine's."""
    save(path, replace(KEPT, fetched_at=NOW + ahead))

    assert load(path, NOW).fetched_at == NOW + ahead


@pytest.mark.parametrize("moment", [NOW + 3601, 4_000_000_000.0, 1e18, -1.0, True, None, "1", [1], 10**19])
def test_a_file_that_is_not_from_the_past_is_ignored_with_one_warning(path, caplog, moment):
    """It would be newer than all that is fetched, for as long as it lies there."""
    save(path, KEPT)
    rewritten(path, fetched_at=moment)

    assert load(path, NOW) is None
    assert [record.getMessage() for record in caplog.records] == [
        f"the catalogue in {path} is ignored: it was not fetched at a time that has been"
    ]


def test_a_file_without_end_is_not_read_whole(path, caplog):
    """A file that has grown beyond all reason is no catalogue."""
    save(path, KEPT)
    os.truncate(path, (64 << 20) + 2)

    assert load(path, NOW) is None
    assert "it is longer than" in caplog.text


def test_a_failed_write_leaves_the_old_file_and_no_draft(path):
    """What cannot be written changes nothing."""
    save(path, KEPT)
    before = path.read_bytes()
    broken = Kept(KEPT.fetched_at + 1, {"a/b": replace(catalogue.models[0], family=object())})

    with pytest.raises(TypeError):
        save(path, broken)

    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_a_draft_that_cannot_be_put_in_place_is_taken_away(path):
    """A folder in the way is an error of the disk."""
    path.mkdir(parents=True)
    (path / "full").touch()

    with pytest.raises(OSError):
        save(path, KEPT)

    assert [file.name for file in path.parent.iterdir()] == ["catalogue.json"]
