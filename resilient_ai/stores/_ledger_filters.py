"""Which rows of the ledger a question is about, in SQL."""

from collections.abc import Mapping

TAG_COLUMNS = ("tenant", "user", "feature", "environment")
_COLUMNS = frozenset((*TAG_COLUMNS, "model", "kind"))


def where(
    since: float | None, until: float | None, tags: Mapping[str, str] | None, table: str = ""
) -> tuple[str, list[object]]:
    """Return a condition and the values of its question marks.

    Args:
        since: Rows from that moment on.
        until: Rows before that moment.
        tags: Rows with all of these tags; "model" and "kind" count as tags.
        table: What stands in front of the columns, where a statement asks two tables.

    >>> where(1.0, None, {"tenant": "a", "team": "red"})
    ('at >= ? AND tenant = ? AND tag_of(tags, ?) = ?', [1.0, 'a', 'team', 'red'])
    """
    terms: list[str] = []
    values: list[object] = []
    for term, bound in (("at >= ?", since), ("at < ?", until)):
        if bound is not None:
            terms.append(table + term)
            values.append(bound)
    for name, value in (tags or {}).items():
        if name in _COLUMNS:
            terms.append(f"{table}{name} = ?")
        else:
            terms.append(f"tag_of({table}tags, ?) = ?")
            values.append(name)
        values.append(value)
    return " AND ".join(terms) or "1", values
