"""HTML in which whatever was not built here is escaped.

A file's or a class's name may hold anything; only :func:`element` makes an
:class:`Html`, and it escapes every child that is not one.
"""

from __future__ import annotations

import html

__all__ = ["Html", "clean", "element", "join", "raw"]

_VOID = {"img", "meta", "br"}


class Html(str):
    """Markup that is safe to put into a page as it is."""

    __slots__ = ()


def clean(text: str) -> str:
    r"""Return ``text`` with everything shown that would be invisible or cannot be written.

    Control characters, and halves of characters from file names that are not
    valid Unicode, become escapes such as ``\x07``; line ends become spaces.
    """
    return "".join(
        character
        if character.isprintable() or character == "\u00a0"
        else " "
        if character.isspace()
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def element(name: str, *children: str | None, **attributes: str | int | None) -> Html:
    """Return ``<name attributes>children</name>``.

    Args:
        name: The tag.
        children: Text, which is escaped, or :class:`Html`, which is not; None is left out.
        attributes: Values are escaped; ``class_`` is written ``class``, ``data_label`` is written
            ``data-label``; None leaves the attribute out.

    Example:
        >>> element("p", "a < b", element("b", "!"), class_="note")
        '<p class="note">a &lt; b<b>!</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(clean(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """Return ``children`` one after the other; plain text is escaped, None is left out."""
    return Html(
        "".join(
            child if isinstance(child, Html) else _escape(child)
            for child in children
            if child is not None
        )
    )


def raw(markup: str) -> Html:
    """Return our own, constant markup (a style sheet, a document type) unescaped."""
    return Html(markup)


def _escape(text: str) -> str:
    return html.escape(clean(text))
