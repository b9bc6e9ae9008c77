"""What programs around a client ask of the parts of the default stack."""

import pytest

from resilient_ai.inspection import survey_of
from resilient_ai.middleware import Budget
from resilient_ai.settings import Settings
from resilient_ai.stores import SQLiteLedger

from .cli.books import Rows

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    """The threads of a ledger know no virtual time."""
    return "asyncio"


@pytest.fixture
async def ledger():
    book = SQLiteLedger(":memory:")
    yield book
    await book.aclose()


async def test_budgets_are_surveyed_without_a_client(ledger, clock):
    """What the ledger knows is spent, for as many values of a tag as are wanted; the ledger stays open."""
    rows = Rows(ledger)
    for tenant, cost in (("a", "0.5"), ("b", "0.25")):
        rows.send(clock.wall(), cost, tenant=tenant)
    settings = Settings(budgets=(Budget(limit=1, per="day", scope={"tenant": "*"}),))

    found = await survey_of(settings, ledger, {}, most=1, clock=clock)
    one = await survey_of(settings, ledger, {"tenant": "b"}, most=None, clock=clock)

    assert [(state.key[2], str(state.spent)) for state in found.states] == [("tenant=a", "0.5")]
    assert (found.hidden, found.unlisted) == (1, ())
    assert [str(state.left) for state in one.states] == ["0.75"]
    assert (await ledger.total()).sends == 2
