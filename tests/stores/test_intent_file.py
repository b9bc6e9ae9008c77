"""Slots in a file: filled, freed, read by others, damaged."""

import os
import resource

import pytest

from resilient_ai.stores._intent_file import _LARGE_FROM, LONGEST, IntentFile, is_left, owner_of, read

OWNER = [1, 2, "us"]
SLOTS, LARGE_SLOTS = 4096, 64


@pytest.fixture
def file(tmp_path):
    return IntentFile(tmp_path / "file", OWNER)


def damage(path, at, content):
    with path.open("r+b") as changed:
        changed.seek(at)
        changed.write(content)


def test_what_is_stored_can_be_read(file):
    """While the file is open, and without anything being written explicitly."""
    file.put("a", b'["a"]\n')
    file.put("b", b'["b"]\n')
    assert (owner_of(file.path), sorted(read(file.path))) == (OWNER, [["a"], ["b"]])
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_what_is_freed_is_gone(file):
    """And its slot is filled again; names that are not there do not matter."""
    for name in "abc":
        file.put(name, b'"%s"\n' % name.encode())
    file.free(["b", "never"])
    assert sorted(read(file.path)) == ["a", "c"]
    place = file.places["c"]
    file.free("c")
    file.put("d", b'"d"\n')
    assert (file.places["d"], sorted(read(file.path))) == (place, ["a", "d"])


def test_long_contents_have_slots_of_their_own(file):
    """As long as there are any, and up to their size."""
    long = b'"%s"\n' % (b"x" * (LONGEST - 3))
    assert all(file.put(f"long {number}", long) for number in range(LARGE_SLOTS))
    assert not file.put("one more", b'"%s"\n' % (b"x" * 600))
    file.free(["long 3"])
    assert not file.put("too long", b" " + long)
    assert file.put("long 3", long)
    assert file.put("short", b'"%s"\n' % (b"y" * 509))
    found = read(file.path)
    assert sorted(map(len, found)) == [509, *[LONGEST - 3] * LARGE_SLOTS]
    file.free(["long 7"])
    assert file.put("one more", long)


def test_there_are_only_so_many_slots(file):
    """Whoever comes then hears of it, and what was there stays."""
    assert all(file.put(f"{number}", b"%d\n" % number) for number in range(SLOTS))
    assert not file.put("more", b"0\n")
    assert sorted(read(file.path)) == list(range(SLOTS))
    file.free(["17"])
    assert file.put("more", b"0\n")


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (0, b"\n"),  # freed, as far as that had come
        (0, b"\0\0\0"),
        (8, b'"'),
        (10, b"\0" * 4),  # as if the rest had not been stored yet
        (8, b"x" * 600),
    ],
)
def test_a_slot_that_is_not_whole_is_left_out(file, offset, content):
    """The others are read."""
    file.put("b", b'"b is not"\n')
    file.put("a", b'"a is whole"\n')
    damage(file.path, file.places["b"] + offset, content)
    assert read(file.path) == ["a is whole"]


def test_a_whole_slot_that_says_nothing_is_left_out(file):
    """It is not what anybody has stored."""
    file.put("a", b"{what\n")
    assert read(file.path) == []


@pytest.mark.parametrize("length", [0, 3, 100, 512, _LARGE_FROM - 515, _LARGE_FROM + 4])
def test_a_file_that_was_cut_off(file, tmp_path, length):
    """What is left of it is read."""
    file.put("last", b'"last"\n')
    cut = tmp_path / "cut"
    cut.write_bytes(file.path.read_bytes()[:length])
    assert owner_of(cut) == (OWNER if length >= 100 else None)
    assert read(cut) == (["last"] if length > _LARGE_FROM - 512 else [])


def test_an_empty_file_is_removed(file):
    """Nobody fills a slot of it any more."""
    file.put("a", b'"a"\n')
    file.free("a")
    file.leave([1, 2, "nobody"])
    assert not file.path.exists()
    assert not file.put("b", b'"b"\n')


def test_a_file_that_is_not_empty_is_left_to_others(file):
    """They see who has it now, and nothing is added."""
    file.put("a", b'"a"\n')
    file.leave([1, 2, "nobody"])
    assert not file.put("b", b'"b"\n')
    assert (owner_of(file.path), read(file.path)) == ([1, 2, "nobody"], ["a"])


def test_a_file_that_is_there_is_not_touched(tmp_path):
    """Nor one that cannot be made."""
    (tmp_path / "file").write_text("something")
    with pytest.raises(FileExistsError):
        IntentFile(tmp_path / "file", OWNER)
    assert (tmp_path / "file").read_text() == "something"
    with pytest.raises(FileNotFoundError):
        IntentFile(tmp_path / "nowhere" / "file", OWNER)


def test_a_file_that_is_cut_off_while_it_is_used(file):
    """Grows again, and has what is stored from then on."""
    file.put("before", b'"before"\n')
    os.truncate(file.path, 0)
    file.free(["before"])
    assert file.put("small", b'"small"\n')
    assert file.put("large", b'"%s"\n' % (b"x" * 600))
    assert read(file.path) == ["small", "x" * 600]


def test_a_slot_that_cannot_be_written_is_not_lost(file, in_child):
    """It is filled as soon as there is room."""

    def work():
        os.truncate(file.path, 0)
        most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, most[1]))
        refused = [file.put(f"{number}", b"1\n") for number in range(SLOTS)]
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
        return not any(refused) and all(file.put(f"{number}", b"1\n") for number in range(SLOTS))

    assert in_child(work) == 0


def test_what_was_deleted_is_not_there(file):
    """Until then it is."""
    assert file.is_there()
    file.path.unlink()
    assert not file.is_there()


def test_a_descriptor_that_somebody_closed(tmp_path):
    """Is not used for another file that has the number now."""
    file = IntentFile(tmp_path / "file", OWNER)
    file.put("a", b'"a"\n')
    path = tmp_path / "other"
    path.write_bytes(b"theirs")
    number = file._descriptor
    theirs = os.open(path, os.O_RDWR)
    os.dup2(theirs, number)
    assert not file.is_there()
    file.free(["a"])
    assert not file.put("b", b'"b"\n')
    file.leave(OWNER)
    del file
    assert os.fstat(number).st_ino == path.stat().st_ino
    assert path.read_bytes() == b"theirs"
    os.close(number)
    os.close(theirs)


def test_programs_that_are_started_do_not_inherit_it(file):
    """Else they would keep it locked."""
    assert not os.get_inheritable(file._descriptor)


def test_it_is_locked_until_its_process_ends(file):
    """Then it is left, whatever it holds."""
    path = file.path
    assert not is_left(path)
    file.put("a", b'"a"\n')
    os.close(os.dup(file._descriptor))
    assert not is_left(path)


def test_a_file_whose_owner_is_gone_is_left(tmp_path, in_child):
    """Nobody else has it open."""
    path = tmp_path / "file"

    def work():
        IntentFile(path, OWNER).put("a", b'"a"\n')
        return True

    assert in_child(work) == 0
    assert is_left(path)
    assert read(path) == ["a"]


def test_only_what_was_written_is_read(file):
    """However many slots were never filled; the first and the last are found."""
    for number in range(SLOTS):
        file.put(f"{number}", b"%d\n" % number)
    for number in range(LARGE_SLOTS):
        file.put(f"large {number}", b'"%s"\n' % (b"x" * 5000))
    file.free(f"{number}" for number in range(1, SLOTS - 1))
    file.free(f"large {number}" for number in range(1, LARGE_SLOTS - 1))
    assert read(file.path) == [SLOTS - 1, 0, "x" * 5000, "x" * 5000]
