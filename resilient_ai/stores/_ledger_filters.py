"""Which rows of the ledger a question is about, in SQL."""

from resilient_ai.stores._ledger_common import Filter

TAG_COLUMNS = ("tenant", "user", "feature", "environment")
# What a question may name as a tag and has a column of its own.
NAMED = frozenset((*TAG_COLUMNS, "model", "kind"))


def where(which: Filter, table: str = "") -> tuple[str, list[object]]:
    """Return a condition and the values of its question marks.

    Args:
        which: The rows; "model" and "kind" count as tags.
        table: What stands in front of the columns, where a statement asks two tables.

    >>> where(Filter(since=1.0, tags={"tenant": "a", "team": "red"}))
    ('at >= ? AND tenant = ? AND tag_of(tags, ?) = ?', [1.0, 'a', 'team', 'red'])
    """
    terms: list[str] = []
    values: list[object] = []
    for term, bound in (("at >= ?", which.since), ("at < ?", which.until)):
        if bound is not None:
            terms.append(table + term)
            values.append(bound)
    for name, value in (which.tags or {}).items():
        if name in NAMED:
            terms.append(f"{table}{name} = ?")
        else:
            terms.append(f"tag_of({table}tags, ?) = ?")
            values.append(name)
        values.append(value)
    if which.kinds is not None:
        terms.append(f"{table}kind IN ({', '.join('?' * len(which.kinds))})")
        values += which.kinds
    return " AND ".join(terms) or "1", values
