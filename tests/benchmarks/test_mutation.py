"""The count of mutants: how the answers of mutmut are read, and what becomes of them."""

import pytest

from benchmarks.mutation import BEGIN, END, counted, placed, read, summed, table

LISTED = """
    resilient_ai.middleware._machines.gcra.xǁGcraǁwait__mutmut_1: killed
    resilient_ai.middleware._machines.gcra.xǁGcraǁwait__mutmut_2: survived
    resilient_ai.deepinfra.wire.errors.x__shown__mutmut_1: timeout
    resilient_ai.deepinfra.wire.errors.x__shown__mutmut_2: no tests
    resilient_ai.deepinfra.wire.errors.x__shown__mutmut_3: segfault
""".splitlines()


def test_mutants_are_counted_by_file():
    """A mutant that is noticed, runs for ever or crashes is killed; one that no test reaches is alive."""
    counts = counted(read(LISTED))
    assert counts == {
        "resilient_ai/deepinfra/wire/errors.py": (3, 2),
        "resilient_ai/middleware/_machines/gcra.py": (2, 1),
    }
    assert summed(counts) == (5, 3)


@pytest.mark.parametrize("fate", ["not checked", "suspicious"])
def test_a_run_that_did_not_end_counts_for_nothing(fate):
    """A mutant of unknown fate is neither a success nor a failure of the tests."""
    with pytest.raises(ValueError, match=f"a.x_f__mutmut_1 is neither dead nor alive: {fate}"):
        counted({"a.x_f__mutmut_1": fate})


def test_the_table_ends_with_all():
    """A line for each file, and the sum."""
    assert table({"resilient_ai/a.py": (1_000, 950), "resilient_ai/b.py": (100, 40)}).splitlines() == [
        "| file | mutants | killed | share |",
        "| --- | --: | --: | --: |",
        "| `a.py` | 1,000 | 950 | 95.0% |",
        "| `b.py` | 100 | 40 | 40.0% |",
        "| all | 1,100 | 990 | 90.0% |",
    ]


def test_it_is_put_between_its_marks():
    """What stood there goes, the rest of the page stays; a page without marks is refused."""
    assert placed(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="the page lacks"):
        placed(f"{END}{BEGIN}", "new")
