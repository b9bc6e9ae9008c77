import json
import os
import sys
import threading

import pytest

from resilient_ai.cli._input import source_of
from resilient_ai.cli.failures import WrongUseError
from resilient_ai.simulator import Fault

MODEL = "BAAI/bge-m3"


def test_a_file_of_lines_becomes_a_file_of_vectors(shell, tmp_path):
    """Each line is one record with its number in the file; blank lines are left out and counted."""
    (tmp_path / "ports.txt").write_text("Kiel\n\nEmden\n", encoding="utf-8")
    result = shell.run("embed", "ports.txt", "--output", "vectors.jsonl")
    records = [json.loads(line) for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    assert [(record["index"], record["text"]) for record in records] == [(0, "Kiel"), (2, "Emden")]
    assert {len(record["vector"]) for record in records} == {1024}
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[0] == "1 blank line left out"
    assert result.stderr.splitlines()[1].startswith("2 vectors of 1,024 dimensions · 1 request · $0.00000003 · ")
    assert result.stderr.rstrip().endswith("written to vectors.jsonl")


@pytest.mark.parametrize(
    ("args", "stdin"), [(["-t", "Kiel", "--text", "Emden"], None), (["-"], "Kiel\r\n\nEmden\n"), ([], "Kiel\nEmden")]
)
def test_a_pipe_gets_json_lines(shell, args, stdin):
    """Off a terminal standard output is one JSON record per text, from options or standard input."""
    result = shell.run("embed", *args, stdin=stdin)
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["Kiel", "Emden"]


def test_a_pipe_with_a_name_is_read_once(shell, tmp_path):
    """What another program writes, as in `embed <(zcat texts.gz)`, is read like standard input."""
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("Kiel\n",)).start()
    assert json.loads(shell.run("embed", "pipe").stdout)["text"] == "Kiel"


def texts(count):
    return [word for number in range(count) for word in ("--text", f"port {number}")]


def test_a_terminal_gets_a_preview(shell):
    """A terminal shows the first texts and the first numbers, and how many there are."""
    result = shell.run("embed", *texts(25), FORCE_COLOR="1")
    assert "port 19" in result.stdout
    assert "port 20" not in result.stdout
    assert "… and 5 more; --output keeps them all" in result.stderr


def test_a_short_preview_is_whole(shell):
    """Where everything is shown nothing is said to be left out."""
    result = shell.run("embed", "-t", "Kiel", FORCE_COLOR="1")
    assert "Kiel" in result.stdout
    assert "more" not in result.stderr


@pytest.mark.parametrize("args", [[], ["--output", "v.jsonl"]])
def test_progress_is_shown_on_a_terminal(shell, args):
    """The bar counts the texts that are done."""
    result = shell.run("embed", *args, *texts(10), FORCE_COLOR="1", RESILIENT_AI_BATCH_SIZE="4")
    assert "10/10" in result.stderr


def test_json_holds_the_vectors(shell):
    """--json without a file is one document with the vectors."""
    args = ("embed", "--json", "--dimensions", "64", "-m", "Qwen/Qwen3-Embedding-8B", "-t", "Kiel")
    document = json.loads(shell.run(*args).stdout)
    assert (document["texts"], document["dimensions"], len(document["vectors"][0])) == (1, 64, 64)


def test_known_texts_are_not_sent_again(shell, simulator):
    """The cache on disk serves the next command too, unless it is switched off."""
    shell.run("embed", "-t", "Kiel", "-t", "Emden")
    again = shell.run("embed", "-t", "Kiel", "-t", "Emden", "-t", "Husum")
    assert simulator.stats().embedded_texts == 3
    assert "2 from the cache" in again.stderr
    shell.run("embed", "--no-cache", "-t", "Kiel")
    assert simulator.stats().embedded_texts == 4


def test_too_many_texts_for_a_screen_are_refused(shell, simulator, tmp_path):
    """What nobody can read belongs into a file, and nothing is paid before that is said."""
    (tmp_path / "many.txt").write_text("Kiel\n" * 5001)
    result = shell.run("embed", "many.txt")
    assert (result.exit_code, simulator.stats().requests) == (2, 0)
    assert "more than 5,000 texts need --output FILE" in result.stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["missing.txt"], "missing.txt: No such file or directory"),
        (["."], ".: Is a directory"),
        (["binary.txt"], "binary.txt: line 2 is not UTF-8 text"),
        (["long.txt"], "long.txt: line 1 is longer than 8 MiB"),
        (["lines.txt", "-t", "Kiel"], "give a file or --text, not both"),
        (["-t", "Kiel\udcff"], "an argument is not UTF-8 text"),
        (["empty.txt"], "there is nothing to embed in empty.txt"),
    ],
)
def test_wrong_texts_are_found_before_anything_is_sent(shell, simulator, tmp_path, args, sentence):
    """Texts are looked at before money is spent, and nothing is left behind."""
    (tmp_path / "lines.txt").write_text("Kiel\n")
    (tmp_path / "binary.txt").write_bytes(b"Kiel\n\xff\n")
    (tmp_path / "long.txt").write_bytes(b"x" * (9 << 20))
    (tmp_path / "empty.txt").write_text("\n")
    for output in ((), ("-o", "v.jsonl")):
        result = shell.run("embed", *args, *output)
        assert (result.exit_code, result.stdout, simulator.stats().requests) == (2, "", 0)
        assert f"error: {sentence}" in result.stderr
    assert not list(tmp_path.glob(".v*"))


def test_nothing_at_a_terminal_is_nothing_to_embed(shell, monkeypatch):
    """Where there is neither a file nor a pipe the command does not wait for typing."""
    monkeypatch.setattr("resilient_ai.cli._input.sys.stdin", type("Terminal", (), {"isatty": lambda _: True})())
    with pytest.raises(WrongUseError, match="give a file with one text per line"):
        source_of([], None)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("vectors.csv", "the file must end in .parquet or .npy or .jsonl, got 'vectors.csv'"),
        ("nowhere/v.jsonl", "nowhere/v.jsonl cannot be written"),
        ("folder.npy", "folder.npy cannot be written"),
        ("lines.jsonl", "lines.jsonl is the file that is read"),
    ],
)
def test_wrong_output_is_found_before_anything_is_sent(shell, simulator, tmp_path, output, sentence):
    """The output is looked at before money is spent."""
    (tmp_path / "lines.jsonl").write_text("Kiel\n")
    (tmp_path / "folder.npy").mkdir()
    result = shell.run("embed", "lines.jsonl", "-o", output)
    assert (result.exit_code, simulator.stats().requests) == (2, 0)
    assert f"error: --output: {sentence}" in result.stderr


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "parquet"), ("numpy", "numpy")])
def test_missing_packages_are_named_with_their_extra(shell, simulator, monkeypatch, package, extra):
    """A format whose package is not installed is refused before money is spent."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    result = shell.run("embed", "-t", "Kiel", "-o", f"v.{extra.removeprefix('numpy') or 'npy'}")
    assert (result.exit_code, simulator.stats().requests) == (2, 0)
    assert f"{package} is missing; install it with: pip install 'resilient-ai[{extra}]'" in result.stderr


def test_failure_leaves_the_old_file_alone(shell, simulator, tmp_path):
    """A file is replaced by a whole one or not at all, and where nothing was done nothing is left behind."""
    (tmp_path / "v.jsonl").write_text("old\n")
    simulator.faults.script(MODEL, Fault.status(402))
    result = shell.run("embed", "-o", "v.jsonl", "-t", "Kiel")
    assert (result.exit_code, (tmp_path / "v.jsonl").read_text()) == (1, "old\n")
    assert "top up the account" in result.stderr
    assert "goes on from there" not in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["v.jsonl"]
