"""`resilient-ai boards`: three files, none overwritten by accident, and what to do with them."""

import json

import pytest

from resilient_ai.observability import boards


def written(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_three_files_are_written_and_what_to_do_is_said(offline):
    """They are those of the package, in a folder that is made; standard output stays empty."""
    result = offline.run("boards", "some/where")
    assert (result.exit_code, result.stdout) == (0, "")
    assert written(offline.folder / "some" / "where") == {name: boards.text_of(name) for name in boards.NAMES}
    for said in (
        "some/where/alerts.yaml under `rule_files:`",
        "import some/where/dashboard.json",
        "YOURS",
        "--runbook",
    ):
        assert said in result.stderr


def test_what_is_there_is_not_overwritten_unless_that_is_asked_for(offline):
    """A threshold that somebody has set outlives a second run; with --force all files are new."""
    (offline.folder / "alerts.yaml").write_text("mine")
    result = offline.run("boards", ".")
    assert (result.exit_code, written(offline.folder)) == (2, {"alerts.yaml": "mine"})
    assert "alerts.yaml: there already; --force" in result.stderr
    assert offline.run("boards", ".", "--force").exit_code == 0
    assert written(offline.folder) == {name: boards.text_of(name) for name in boards.NAMES}


def test_alerts_and_panels_lead_to_your_runbook(offline):
    """Each address is that of the copy, with the section behind it, and the board is still JSON."""
    result = offline.run("boards", "out", "--runbook", "https://wiki.example/ai")
    files = written(offline.folder / "out")
    assert "runbook_url: https://wiki.example/ai#resilientaislow\n" in files["alerts.yaml"]
    (link,) = json.loads(files["dashboard.json"])["links"]
    assert link["url"] == "https://wiki.example/ai"
    assert "docs/runbook.md" not in "".join(files.values()) + result.stderr


@pytest.mark.parametrize(
    "address",
    [
        'https://x/"',
        "https://x/#here",
        "https://x/{{ a }}",
        "https://x/ y",
        "https://x/$y",
        "",
        "not-a-url",
        "ftp://x/y",
        "https://",
    ],
)
def test_an_address_that_would_break_a_file_is_refused(offline, address):
    """Nothing is written then."""
    result = offline.run("boards", "out", f"--runbook={address}")
    assert (result.exit_code, (offline.folder / "out").exists()) == (2, False)
    assert "error: --runbook must be an address" in result.stderr


def test_a_file_in_the_place_of_the_folder_is_told_of(offline):
    """One line, and the file is left alone."""
    (offline.folder / "out").write_text("mine")
    result = offline.run("boards", "out")
    assert (result.exit_code, (offline.folder / "out").read_text()) == (2, "mine")
    assert "out: " in result.stderr


def test_other_names_are_no_files_of_it():
    """Nothing else of the package can be read by it."""
    with pytest.raises(ValueError, match="name must be one of"):
        boards.text_of("__init__.py")
