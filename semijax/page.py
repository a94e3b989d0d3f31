"""Plain HTML to show paths and graphs in, with everything escaped, and their JSON."""

from __future__ import annotations

import html
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

POSITIVE, NEGATIVE = "#b2182b", "#2166ac"
"""The colours of the signs, taken from the blue-red map that pictures of signed numbers use."""


def finite(content: Any) -> Any:
    """Replace numbers that are not finite, which JSON does not have, by text."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return str(content) if isinstance(content, float) and not math.isfinite(content) else content


def text(content: Any) -> str:
    """Return escaped text."""
    return html.escape(str(content))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table of cells that are HTML."""
    head = "".join(f"<th>{text(h)}</th>" for h in heads)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    title = f'<caption style="text-align:left">{text(caption)}</caption>' if caption else ""
    return f"<table>{title}<tr>{head}</tr>{body}</table>"


def bar(share: float, sign: int) -> str:
    """Return a bar as long as a share of 1, in the colour of a sign."""
    colour = POSITIVE if sign > 0 else NEGATIVE
    style = f"background:{colour};height:4px;width:{round(80 * share)}px"
    return f'<div style="{style}"></div>'


def details(summary: str, content: str) -> str:
    """Return text that opens to more."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def document(title: str, body: str) -> str:
    """Return a whole file."""
    style = "body{font-family:sans-serif;font-size:14px} td,th{padding:2px 8px}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f"<style>{style}</style></head><body>{body}</body></html>"
    )


def frame(document: str, height: int) -> str:
    """Return a frame with a whole file inside another, ``height`` pixels high."""
    return (
        f'<iframe srcdoc="{text(document)}" style="width:100%;height:{height}px;border:0" '
        'sandbox="allow-scripts allow-downloads"></iframe>'
    )


def save(path: str | os.PathLike[str], formats: Mapping[str, Callable[[], str]]) -> None:
    """Write a text file in the format given by the ending of its name.

    Args:
        path: where to.
        formats: from endings, such as ``".html"``, to what makes the text.

    Raises:
        ValueError: if the name ends in something else.
    """
    path = pathlib.Path(path)
    if path.suffix.lower() not in formats:
        raise ValueError(f"The file name must end in {', '.join(formats)}; got {str(path)!r}.")
    path.write_text(formats[path.suffix.lower()](), encoding="utf-8")
