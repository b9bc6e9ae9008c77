"""The benchmark of cached embeddings: who takes part, what is compared, and how the aims are judged."""

import json
import sqlite3
from array import array

import pytest

from benchmarks.cached_embeddings.case import Case, NotHere, check
from benchmarks.cached_embeddings.contenders import CONTENDERS, GOALS
from benchmarks.cached_embeddings.crew import Member
from benchmarks.cached_embeddings.floors import Dict, Sqlite
from benchmarks.cached_embeddings.meter import Reading, measured
from benchmarks.cached_embeddings.ours import Ours
from benchmarks.cached_embeddings.report import Outcome, as_json, table, troubles, verdicts

COUNT, DIMENSIONS = 40, 32

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """Threads and files take real time."""
    return "asyncio"


@pytest.fixture
def case(tmp_path):
    """A few texts with vectors that four bytes hold exactly."""
    with (tmp_path / "vectors").open("wb") as file:
        array("f", (number / 8 for number in range(COUNT * DIMENSIONS))).tofile(file)
    (tmp_path / "own").mkdir()
    return Case(tmp_path / "vectors", COUNT, DIMENSIONS, tmp_path / "own")


@pytest.mark.parametrize(
    ("kind", "lists"),
    [("memory", False), ("memory", True), ("disk", False), ("disk", True), ("tiered", False), ("tiered-cold", False)],
)
async def test_ours_read_what_was_put_in(case, kind, lists):
    """Filled, and read twice without a send; either as one array or as lists."""
    reader = Ours(case, kind, lists=lists)
    await reader.fill()
    for _ in range(2):
        await reader.prepare()
        answer = await reader.read()
        check(case, reader, answer)
        assert isinstance(answer, list) == lists
    await reader.aclose()


async def test_numbers_of_eight_bytes_come_back_as_well(case):
    """What a service answers as JSON is kept and found, too."""
    wide = Case(case.vectors, COUNT, DIMENSIONS, case.folder, width=8)
    reader = Ours(wide, "memory")
    await reader.fill()
    await reader.prepare()
    check(wide, reader, await reader.read())
    await reader.aclose()


async def test_a_read_that_would_send_is_a_failure(case):
    """A cache that lost its entries must not be measured by how quickly it is filled again."""
    reader = Ours(case, "memory")
    reader.service.open = False
    await reader.prepare()
    with pytest.raises(RuntimeError, match="40 of 40 texts were not in the cache"):
        await reader.read()
    await reader.aclose()


@pytest.mark.parametrize("make", [Dict, lambda case: Dict(case, lists=True), Sqlite])
async def test_floors_read_what_was_put_in(case, make):
    """What is written by hand gives the same vectors."""
    reader = make(case)
    await reader.fill()
    await reader.prepare()
    check(case, reader, await reader.read())
    await reader.aclose()


async def test_a_wrong_vector_is_noticed(case):
    """The first vector is always in the sample."""
    reader = Sqlite(case)
    await reader.fill()
    with sqlite3.connect(case.folder / "floor.db") as other:
        other.execute("UPDATE vectors SET value = ?", [case.vector(1).tobytes()])
    other.close()
    with pytest.raises(ValueError, match="vector 0 is not what was put in"):
        check(case, reader, await reader.read())
    await reader.aclose()


async def test_time_and_memory_of_a_read(case):
    """An answer of 64 MiB is seen in the growth where the system tells it."""

    async def read():
        return bytearray(b"x" * 2**20) * 64

    answer, reading = await measured(read)
    assert len(answer) == 64 * 2**20
    assert 0 < reading.seconds < 30
    assert reading.growth is None or reading.growth > 32 * 2**20


def test_a_member_lives_in_a_process_of_its_own(case, tmp_path):
    """It is filled, read as often as it is asked, and ends when it is told."""
    own = Case(case.vectors, COUNT, DIMENSIONS, tmp_path / "member")
    member = Member("ours-disk", own, None)
    try:
        assert member.ask("fill") == {}
        assert member.trouble == ""
        assert Reading(**member.ask("read")).seconds > 0
        assert "decode" in member.ask("profile 1")["profile"]
    finally:
        member.end()
    assert member.ask("read") == {}


@pytest.mark.parametrize(
    ("key", "peers", "trouble"),
    [
        ("litellm-memory", False, "skipped: without peers"),
        ("litellm-memory", True, "skipped: there is no environment"),
        ("ours-redis", False, "skipped: there is no redis-server"),
    ],
)
def test_who_cannot_take_part_says_why(case, tmp_path, key, peers, trouble):
    """Nothing is started, and no order is answered."""
    member = Member(key, case, tmp_path / "environment" if peers else None)
    assert member.trouble == trouble
    assert member.ask("fill") == {}


def test_a_peer_that_could_not_be_installed_says_why(case, tmp_path):
    """The reason is the installer's."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "missing.json").write_text(json.dumps({"litellm": "no such version"}))
    assert Member("litellm-memory", case, tmp_path).trouble == "skipped: not installed (no such version)"


def outcome(seconds, *, trouble=""):
    return Outcome(1000, [Reading(each, each, 2**20) for each in seconds], trouble)


def test_aims_are_judged_by_the_ratio_of_medians():
    """The fastest read of a noisy run decides nothing."""
    told = verdicts(
        {
            "ours-disk": outcome([0.02, 0.01, 0.03]),
            "sqlite": outcome([0.01, 0.01, 0.01]),
            "ours-memory-lists": outcome([0.1]),
            "langchain-memory": outcome([0.3]),
        }
    )
    assert [verdict.holds for verdict in told] == [False, True, None]
    assert ": 0.50 (best 1.00): FALLS SHORT" in told[0].line
    assert ": 3.00 (best 3.00): holds" in told[1].line
    assert told[2].line.endswith("50,000 texts/s, on a quiet machine 40,000")


def test_an_aim_without_its_rival_is_not_judged():
    """A run without peers says so, and does not fail."""
    told = verdicts({"ours-memory-lists": outcome([0.1]), "langchain-memory": outcome([], trouble="skipped: no")})
    assert [verdict.holds for verdict in told] == [None, None]
    assert told[1].line.endswith(": not measured")


def test_the_report_holds_what_was_measured_and_what_was_not():
    """A line per contender in the table, the others below it; all of them in the file."""
    outcomes = {"dict": outcome([0.5, 0.25]), "sqlite": outcome([], trouble="failed: no")}
    assert table(outcomes).row_count == 1
    assert troubles(outcomes) == ["sqlite3, IN (500), one thread (bytes) failed: no"]
    written = as_json(outcomes, {"litellm": "1"})["contenders"]
    assert written["dict"]["texts_per_second"]["best"] == 4000
    assert written["dict"]["peak_growth_mib"] == 1
    assert written["sqlite"]["trouble"] == "failed: no"


def test_aims_name_contenders():
    """Nobody is compared with somebody who does not exist."""
    assert {name for goal in GOALS for name in (goal.ours, goal.other)} <= CONTENDERS.keys()


async def test_a_version_without_the_store_is_skipped(case, monkeypatch):
    """The worker tells it from a failure by the kind of the error."""
    monkeypatch.delattr("resilient_ai.stores.RedisStore", raising=False)
    reader = Ours(case, "redis")
    with pytest.raises(NotHere, match="this version has no RedisStore"):
        await reader.prepare()
