import json

import pytest

from resilient_ai.simulator import Fault

MODEL = "BAAI/bge-m3"


def test_a_file_of_lines_becomes_a_file_of_vectors(shell, tmp_path):
    """Each line is one record with its index, in order; blank lines are left out and counted."""
    (tmp_path / "ports.txt").write_text("Kiel\n\nEmden\n", encoding="utf-8")
    result = shell.run("embed", "--file", "ports.txt", "--output", "vectors.jsonl")
    records = [json.loads(line) for line in (tmp_path / "vectors.jsonl").read_text().splitlines()]
    assert [(record["index"], record["text"]) for record in records] == [(0, "Kiel"), (1, "Emden")]
    assert {len(record["vector"]) for record in records} == {1024}
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines()[0] == "1 blank line left out"
    assert result.stderr.splitlines()[1].startswith("2 vectors of 1,024 dimensions · 1 request · $0.00000003 · ")
    assert result.stderr.rstrip().endswith("written to vectors.jsonl")


@pytest.mark.parametrize(("args", "stdin"), [(["Kiel", "Emden"], None), (["-"], "Kiel\nEmden\n"), ([], "Kiel\nEmden")])
def test_a_pipe_gets_json_lines(shell, args, stdin):
    """Off a terminal standard output is one JSON record per text, from arguments or standard input."""
    result = shell.run("embed", *args, stdin=stdin)
    assert [json.loads(line)["text"] for line in result.stdout.splitlines()] == ["Kiel", "Emden"]


def test_a_terminal_gets_a_preview(shell):
    """A terminal shows the first texts and the first numbers, and how many there are."""
    result = shell.run("embed", *(f"port {number}" for number in range(25)), FORCE_COLOR="1")
    assert "port 19" in result.stdout
    assert "port 20" not in result.stdout
    assert "… and 5 more; --output keeps them all" in result.stderr


def test_a_short_preview_is_whole(shell):
    """Where everything is shown nothing is said to be left out."""
    result = shell.run("embed", "Kiel", FORCE_COLOR="1")
    assert "Kiel" in result.stdout
    assert "more" not in result.stderr


def test_progress_is_shown_on_a_terminal(shell):
    """The bar counts the texts that were sent."""
    result = shell.run(
        "embed", "--output", "v.jsonl", *map(str, range(10)), FORCE_COLOR="1", RESILIENT_AI_BATCH_SIZE="4"
    )
    assert "10/10" in result.stderr


def test_json_holds_vectors_or_names_the_file(shell):
    """--json is one document: with the vectors, or with the name of the file that holds them."""
    inline = json.loads(
        shell.run("embed", "--json", "--dimensions", "64", "-m", "Qwen/Qwen3-Embedding-8B", "Kiel").stdout
    )
    assert (inline["texts"], inline["dimensions"], len(inline["vectors"][0])) == (1, 64, 64)
    filed = json.loads(shell.run("embed", "--json", "-o", "v.jsonl", "Kiel").stdout)
    assert (filed["output"], filed["from_cache"], "vectors" in filed) == ("v.jsonl", 0, False)


def test_known_texts_are_not_sent_again(shell, simulator):
    """The cache on disk serves the next command too, unless it is switched off."""
    shell.run("embed", "Kiel", "Emden")
    again = shell.run("embed", "Kiel", "Emden", "Husum")
    assert simulator.stats().embedded_texts == 3
    assert "2 from the cache" in again.stderr
    shell.run("embed", "--no-cache", "Kiel")
    assert simulator.stats().embedded_texts == 4


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--file", "missing.txt"], "missing.txt: No such file or directory"),
        (["--file", "binary.txt"], "binary.txt: is not UTF-8 text"),
        (["--file", "lines.txt", "Kiel"], "give texts as arguments or with --file, not both"),
        (["--file", "empty.txt"], "there is nothing to embed"),
        (["-o", "vectors.csv", "Kiel"], "--output: the file must end in .jsonl, got 'vectors.csv'"),
        (["-o", "nowhere/v.jsonl", "Kiel"], "--output: nowhere/v.jsonl cannot be written: No such file or directory"),
    ],
)
def test_wrong_use_is_found_before_anything_is_sent(shell, simulator, tmp_path, args, sentence):
    """Files and options are looked at before money is spent."""
    (tmp_path / "lines.txt").write_text("Kiel\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff")
    (tmp_path / "empty.txt").write_text("\n")
    result = shell.run("embed", *args)
    assert (result.exit_code, result.stdout, simulator.stats().requests) == (2, "", 0)
    assert f"error: {sentence}" in result.stderr


def test_failure_leaves_the_old_file_alone(shell, simulator, tmp_path):
    """A file is replaced by a whole one or not at all, and nothing else is left behind."""
    (tmp_path / "v.jsonl").write_text("old\n")
    simulator.faults.script(MODEL, Fault.status(402))
    result = shell.run("embed", "-o", "v.jsonl", "Kiel")
    assert (result.exit_code, (tmp_path / "v.jsonl").read_text()) == (1, "old\n")
    assert "top up the account" in result.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == ["v.jsonl"]
