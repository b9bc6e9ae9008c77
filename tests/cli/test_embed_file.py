"""Whole files through the service: the formats, and runs that end early and go on."""

import asyncio
import json
import os
import re
import signal
import threading
import time
from decimal import Decimal

import numpy as np
import pyarrow.parquet as pq
import pytest

from resilient_ai import AsyncClient
from resilient_ai.cli import _lines
from resilient_ai.cli._parts import parts_of
from resilient_ai.settings import Settings
from resilient_ai.simulator import Fault

MODEL = "BAAI/bge-m3"
PORTS = ["Kiel", "Emden", "Husum", "Tönning", "Büsum"]
SMALL = "from resilient_ai.cli import _lines; _lines.CHUNK_LINES = 192"


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(_lines, "CHUNK_LINES", 20)


@pytest.fixture
def tiny_chunks(monkeypatch):
    monkeypatch.setattr(_lines, "CHUNK_LINES", 4)


@pytest.fixture
def lines(tmp_path):
    """A file of 200 different lines, about a dozen small chunks."""
    return write(tmp_path / "lines.txt", 200)


def write(path, count):
    path.write_text("".join(f"berth {number}\n" for number in range(count)))
    return path


def run(shell, *args, **env):
    """Run the command and return its document, or what it said where it failed."""
    result = shell.run("embed", *args, "--output", "v.npy", "--json", **env)
    return json.loads(result.stdout) if result.exit_code == 0 else result


def parts_in(folder):
    return sorted(folder.glob(".v.npy.parts/*.part"))


def fail_after(simulator, requests):
    simulator.faults.script(MODEL, Fault.delay(0), times=requests)
    simulator.faults.script(MODEL, Fault.status(402))


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def own_vectors(simulator, tmp_path):
    """What `client.embed` gives for the same texts."""

    async def ask():
        settings = Settings(home=tmp_path / "other", cache="off")
        async with AsyncClient("key", base_url=simulator.base_url, settings=settings) as client:
            return (await client.embed(MODEL, PORTS)).to_numpy()

    return asyncio.run(ask())


def jsonl(path):
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return np.array([r["vector"] for r in records]), [r["index"] for r in records], [r["text"] for r in records]


def npy(path):
    return np.load(path), None, None


def parquet(path):
    table = pq.read_table(path)
    assert [str(field.type) for field in table.schema] == [
        "int64",
        "string",
        "fixed_size_list<element: float not null>[1024]",
    ]
    return np.array(table["vector"].to_pylist()), table["index"].to_pylist(), table["text"].to_pylist()


@pytest.mark.usefixtures("tiny_chunks")
@pytest.mark.parametrize(("read", "origin"), [(jsonl, "file"), (npy, "stdin"), (parquet, "pipe"), (parquet, "file")])
def test_each_format_reads_back_as_the_clients_own_vectors(shell, tmp_path, own_vectors, read, origin):
    """Vectors, numbers of lines and texts come back bit for bit, in order, from files and pipes, over several chunks."""
    content = b"\xef\xbb\xbf" + "\n\n".join(PORTS).encode()
    output = tmp_path / f"v.{read.__name__}"
    if origin == "pipe":
        os.mkfifo(tmp_path / "pipe")
        threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,)).start()
    (tmp_path / "file").write_bytes(content)
    name = "-" if origin == "stdin" else origin
    result = shell.run("embed", name, "-o", output.name, stdin=content if origin == "stdin" else None)
    assert result.exit_code == 0
    assert "4 blank lines left out" in result.stderr
    vectors, indexes, texts = read(output)
    assert np.array_equal(vectors, own_vectors)
    assert (indexes, texts) in [(None, None), ([0, 2, 4, 6, 8], PORTS)]
    assert not (tmp_path / f".{output.name}.parts").exists()


@pytest.mark.usefixtures("small_chunks")
def test_what_was_done_before_a_failure_is_not_done_again(shell, simulator, lines, tmp_path):
    """The same command goes on: its document has what both runs paid, together the service's own bill."""
    fail_after(simulator, 4)
    failed = run(shell, lines)
    done = int(re.search(r"(\d+) of 200 lines are done; the same command goes on from there", failed.stderr)[1])
    assert (failed.exit_code, 0 < done < 200, len(parts_in(tmp_path))) == (1, True, 4)
    assert {path.stat().st_mode & 0o777 for path in parts_in(tmp_path)} == {0o600}
    assert parts_in(tmp_path)[0].parent.stat().st_mode & 0o777 == 0o700
    again = shell.run("embed", lines, "--output", "v.npy")
    assert f"{done} of 200 lines are there already" in again.stderr
    assert "200 vectors of 1,024 dimensions" in again.stderr
    assert re.search(r" · \$[\d.]+ · \$[\d.]+ in earlier runs · ", again.stderr)
    assert simulator.stats().embedded_texts == 200
    assert np.load(tmp_path / "v.npy").shape == (200, 1024)
    assert not parts_in(tmp_path)


@pytest.mark.usefixtures("small_chunks")
def test_both_runs_together_paid_the_bill(shell, simulator, lines):
    """What the document says was paid now and earlier is exactly the service's own sum."""
    fail_after(simulator, 4)
    run(shell, lines)
    document = run(shell, lines)
    assert (document["texts"], document["cost_complete"], document["earlier"]["requests"]) == (200, True, 4)
    assert Decimal(document["cost"]) + Decimal(document["earlier"]["cost"]) == simulator.stats().bill
    assert document["requests"] + 4 + 1 == simulator.stats().requests


def test_kill_costs_no_more_than_the_chunk_it_met(shell, simulator, tmp_path):
    """After SIGKILL in the middle, even without a cache, the service is paid again for one chunk at most."""
    lines = write(tmp_path / "lines.txt", 1500)
    args = ("embed", lines, "--output", "v.npy", "--json", "--no-cache")
    process = shell.start(*args, first=SMALL)
    wait_for(lambda: len(parts_in(tmp_path)) >= 3)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    wait_for(lambda: simulator.stats().in_flight == 0)
    kept = len(parts_in(tmp_path))
    output, _ = shell.start(*args, first=SMALL).communicate(timeout=30)
    document = json.loads(output)
    assert (document["texts"], document["earlier"]["requests"] >= kept) == (1500, True)
    assert 1500 <= simulator.stats().embedded_texts <= 1500 + 192
    assert len(np.unique(np.load(tmp_path / "v.npy"), axis=0)) == 1500


def test_kill_within_a_chunk_costs_what_was_under_way(shell, simulator, tmp_path):
    """What was answered before a kill is found in the cache, though its chunk was not done: only a few batches are paid again."""
    args = ("embed", write(tmp_path / "lines.txt", 1500), "--output", "v.npy", "--json")
    env = {"RESILIENT_AI_BATCH_SIZE": "32"}
    # At the pace of a service, as the disk is written to behind the calls.
    simulator.faults.rate(Fault.delay(0.03), 1.0)
    process = shell.start(*args, **env)
    wait_for(lambda: simulator.stats().embedded_texts >= 700)
    process.kill()
    process.communicate()
    wait_for(lambda: simulator.stats().in_flight == 0)
    assert not parts_in(tmp_path)
    document = json.loads(shell.run(*args, **env).stdout)
    paid_again = simulator.stats().embedded_texts - 1500
    assert 0 <= paid_again <= 8 * 32
    assert document["from_cache"] >= 700 - 8 * 32


def test_ctrl_c_says_how_far_it_is(shell, tmp_path):
    """Ctrl-C ends with how much is done and the way on."""
    lines = write(tmp_path / "lines.txt", 1500)
    process = shell.start("embed", lines, "--output", "v.npy", "--no-cache", first=SMALL)
    wait_for(lambda: len(parts_in(tmp_path)) >= 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert re.search(rb"^[\d,]+ of 1,500 lines are done; the same command goes on from there\ncancelled\n$", errors), (
        errors
    )


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("before", "after"),
    [("berth 9\n", "berth 9\nberth 9a\n"), ("berth 9\n", ""), ("berth 9\n", "Kiel\n"), ("berth 0\n", "\n\nberth 0\n")],
)
def test_a_change_in_one_place_costs_the_chunks_around_it(shell, simulator, lines, before, after):
    """A line more, a line less, another line: what lies behind is found again, under its new numbers."""
    fail_after(simulator, 9)
    run(shell, lines, "--no-cache")
    sent = simulator.stats().embedded_texts
    lines.write_text(lines.read_text().replace(before, after, 1))
    count = len([line for line in lines.read_text().splitlines() if line])
    document = run(shell, lines, "--no-cache")
    assert document["earlier"]["texts"] >= sent - 40
    assert document["texts"] == count
    assert simulator.stats().embedded_texts <= 200 + 60


@pytest.mark.usefixtures("small_chunks")
def test_a_damaged_part_is_made_again(shell, simulator, lines, tmp_path):
    """A part that is not whole, or not as it was written, is worth nothing and hurts nobody."""
    fail_after(simulator, 7)
    run(shell, lines)
    contents = [path.read_bytes() for path in parts_in(tmp_path)]
    damaged = [
        contents[0][:-500] + bytes([contents[0][-500] ^ 1]) + contents[0][-499:],
        contents[1][:-1],
        b"",
        contents[3].replace(b'"hits":0', b'"hits":1'),
        contents[4].replace(b"part 1", b"part 0"),
        contents[6],
    ]
    for path, content in zip(parts_in(tmp_path), damaged, strict=False):
        path.write_bytes(content)
    document = run(shell, lines)
    whole = json.loads(contents[6].partition(b"\n")[0])
    assert (document["texts"], document["earlier"]["texts"]) == (200, whole["count"])


@pytest.mark.usefixtures("small_chunks")
def test_parts_of_other_options_are_not_used(shell, simulator, lines, tmp_path):
    """Vectors of another model are no part of this file, and are gone with the rest once it is there."""
    fail_after(simulator, 4)
    run(shell, lines)
    document = run(shell, lines, "--model", "intfloat/e5-base-v2")
    assert (document["earlier"]["texts"], document["dimensions"]) == (0, 768)
    assert not (tmp_path / ".v.npy.parts").exists()


def test_two_runs_do_not_write_the_same_file(shell, simulator, lines, tmp_path):
    """The second one refuses before it pays; the folder of the first stays."""
    with parts_of(tmp_path / "v.npy"):
        refused = run(shell, lines)
        assert (refused.exit_code, simulator.stats().requests) == (2, 0)
        assert "v.npy is being written by another process; wait for it, or stop it" in refused.stderr
        assert (tmp_path / ".v.npy.parts" / "lock").exists()


@pytest.mark.usefixtures("small_chunks")
def test_a_run_that_only_has_to_write_needs_no_service(shell, simulator, lines, tmp_path, monkeypatch):
    """Where everything is there but the file, nothing is sent; what may read the old file may read the new one."""
    (tmp_path / "v.npy").write_bytes(b"")
    (tmp_path / "v.npy").chmod(0o640)
    with monkeypatch.context() as broken:
        broken.setattr(
            "resilient_ai.cli._embed_job.put", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        assert "error: No space left" in run(shell, lines).stderr
    sent = simulator.stats().requests
    document = run(shell, lines, DEEPINFRA_API_KEY=None)
    assert (document["requests"], document["earlier"]["texts"], simulator.stats().requests) == (0, 200, sent)
    assert (tmp_path / "v.npy").stat().st_mode & 0o777 == 0o640
