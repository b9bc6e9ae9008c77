"""HTML that is put together safely: a text becomes part of a page in one place, which escapes it."""

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(element: str, *children: str, **attributes: str | None) -> Markup:
    """Return an element; texts in it and in its attributes are escaped, and an attribute that is None is left out.

    An underscore at the end of an attribute's name is dropped, others are hyphens.

    >>> tag("p", "a < b", tag("br"), class_="of <note>")
    '<p class="of &lt;note&gt;">a &lt; b<br></p>'
    """
    shown = {name: value for name, value in attributes.items() if value is not None}
    told = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in shown.items())
    if element in _EMPTY:
        return Markup(f"<{element}{told}>")
    return Markup(f"<{element}{told}>{joined(*children)}</{element}>")


def joined(*children: str) -> Markup:
    """Return texts and elements one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))


_EMPTY = {"br", "input", "link", "meta"}
