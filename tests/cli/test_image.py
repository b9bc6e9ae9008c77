import json
from pathlib import Path

import pytest

from resilient_ai.cli.image import _save, _tell_facts
from resilient_ai.core.results import Image, ImageResult
from resilient_ai.simulator import Fault
from resilient_ai.testing import PIXEL

MODEL = "black-forest-labs/FLUX-1-schnell"


def test_picture_is_written_under_the_suffix_of_its_bytes(shell, tmp_path):
    """The name is as asked for but for a suffix that would be wrong, and standard output is the name of the file."""
    result = shell.run("image", "a lighthouse", "--size", "256x256", "--seed", "7", "--steps", "2", "-o", "light.png")
    assert (result.exit_code, result.stdout) == (0, "light.jpg\n")
    assert (tmp_path / "light.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert result.stderr.startswith(f"{MODEL} · seed 7 · $")


def test_without_a_name_the_next_free_one_is_taken(shell):
    """A picture that is there is not written over."""
    names = [shell.run("image", "a lighthouse", "--size", "256x256").stdout.strip() for _ in range(2)]
    assert names == ["image-1.jpg", "image-2.jpg"]


def test_several_pictures_are_numbered(shell):
    """-n gives each picture a number."""
    result = shell.run("image", "-", "-n", "2", "--size", "256x256", "-o", "light", stdin="a lighthouse")
    assert result.stdout.split() == ["light-1.jpg", "light-2.jpg"]


def test_json_tells_where_pictures_are(shell):
    """--json names each file, its type and its size."""
    document = json.loads(shell.run("image", "--json", "--size", "256x256", "-o", "light.jpeg", "a lighthouse").stdout)
    (picture,) = document["images"]
    assert (picture["path"], picture["media_type"]) == ("light.jpeg", "image/jpeg")
    assert picture["bytes"] == Path("light.jpeg").stat().st_size


def test_cached_and_repeated_pictures_say_so(shell, simulator):
    """The line of facts tells what did not cost anything and what took several requests."""
    shell.env["RESILIENT_AI_CACHE_ANSWERS_ON_DISK"] = "1"
    simulator.faults.script(MODEL, Fault.status(503))
    assert "2 requests" in shell.run("image", "--seed", "7", "--size", "256x256", "a lighthouse").stderr
    again = shell.run("image", "--seed", "7", "--size", "256x256", "a lighthouse")
    assert "from the cache" in again.stderr
    assert "· $0 ·" in again.stderr


@pytest.mark.parametrize("output", ["nowhere/light.png", "."])
def test_unwritable_output_is_found_before_anything_is_sent(shell, simulator, output):
    """A folder that is not there, or a folder in place of a file, costs nothing."""
    result = shell.run("image", "a lighthouse", "-o", output)
    assert (result.exit_code, simulator.stats().requests) == (2, 0)
    assert "cannot be written" in result.stderr


def test_wrong_size_is_a_wrong_use(shell):
    """A size that is none is refused before anything is sent."""
    result = shell.run("image", "--size", "9", "a lighthouse")
    assert (result.exit_code, result.stderr.startswith("error: Image: size: ")) == (2, True)


def test_name_that_fits_is_kept(tmp_path):
    """A PNG under a name that says PNG keeps it."""
    picture = Image(data=PIXEL, media_type="image/png")
    assert _save(picture, tmp_path / "light.png", 1, 1) == tmp_path / "light.png"
    assert _save(picture, tmp_path / "light.v2", 1, 1) == tmp_path / "light.v2.png"


def test_facts_leave_out_what_is_not_known(capsys):
    """Without a seed none is told, and a cost that is not known is not zero."""
    _tell_facts(ImageResult(model="m", images=(Image(data=PIXEL, media_type="image/png"),)), 0.5)
    assert capsys.readouterr().err == "m · unknown · 500 ms\n"
