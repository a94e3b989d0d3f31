"""The installed fonts that have the glyphs of a text, and the characters that none has."""

from __future__ import annotations

import functools
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "DejaVu Sans"
"""The font that comes with matplotlib."""

PREFERRED = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Noto Emoji",
)
"""The fonts that are asked first for what ``BASE`` has no glyphs for."""

PLACEHOLDERS = ("Last Resort", "LastResort", "Adobe Blank", ".")
"""The beginnings of names of fonts with a glyph for everything, or for the system alone."""

ENCODED = ("cmb10", "cmex10", "cmmi10", "cmr10", "cmss10", "cmsy10", "cmtt10")
"""Matplotlib's fonts for formulas, whose glyphs do not match the characters' numbers."""


def families(texts: Iterable[str]) -> list[str]:
    """Choose fonts to draw texts in: ``BASE``, and installed ones that have what it lacks."""
    found = [BASE]
    wanted = _lacking(texts, found)
    for name in _others() if wanted else ():
        lacking = _lacking(wanted, [name])
        if lacking != wanted:
            found.append(name)
            wanted = lacking
        if not wanted:
            break
    return found


def undrawn(figure: Figure) -> frozenset[str]:
    """Return the characters of a figure's texts that their fonts have no glyphs for."""
    texts: dict[tuple[str, ...], list[str]] = {}
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            texts.setdefault(tuple(text.get_fontfamily()), []).append(text.get_text())
    return frozenset().union(*(_lacking(own, names) for names, own in texts.items()))


def advice(characters: Iterable[str]) -> str:
    """Say what to do about characters that no font has."""
    named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in sorted(characters))
    return (
        f"No installed font has a glyph for {named}: the picture shows a box or the like in its "
        "place. Fonts such as Noto Sans CJK and Noto Emoji have most. Install one, or name its "
        "file to matplotlib.font_manager.fontManager.addfont, and draw the picture again."
    )


def _lacking(texts: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """Return the characters of texts that no font of these names draws."""
    characters = frozenset(c for text in texts for c in text if c != "\n")
    for path, index in _files(names):
        characters -= _drawn(path, index, characters)
    return characters


def _others() -> Iterator[str]:
    """Yield the names of the other fonts, the best first."""
    installed = set(font_manager.fontManager.get_font_names())
    yield from (name for name in PREFERRED if name in installed)
    for name in sorted(installed.difference(PREFERRED, ENCODED, [BASE])):
        if not name.startswith(PLACEHOLDERS):
            yield name


def _files(names: Iterable[str]) -> list[tuple[str, int]]:
    """Find the files of fonts, with the place in each; that of ``BASE`` if there are none."""
    files = []
    log = logging.getLogger(font_manager.__name__)
    level = log.level
    log.setLevel(logging.ERROR)  # no one needs to know the weight of fonts that are only looked at
    try:
        for name in names:
            properties = font_manager.FontProperties(family=[name])
            try:
                path = font_manager.findfont(properties, fallback_to_default=False)
            except ValueError:  # no such font
                continue
            files.append((str(path), getattr(path, "face_index", 0)))  # since matplotlib 3.11
    finally:
        log.setLevel(level)
    return files or _files([BASE])


@functools.lru_cache(maxsize=1024)
def _drawn(path: str, index: int, characters: frozenset[str]) -> frozenset[str]:
    """Return the characters that a font draws, not those it has only as bitmaps or in colour."""
    try:
        font = FT2Font(path, face_index=index) if index else FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    if not font.scalable:
        return frozenset()
    font.set_size(12, 72)
    return frozenset(c for c in characters if font.get_char_index(ord(c)) and _is_seen(font, c))


def _is_seen(font: FT2Font, character: str) -> bool:
    if unicodedata.category(character) in ("Zs", "Cf", "Mn"):  # such as a space: nothing to see
        return True
    glyph = font.load_char(ord(character))
    return glyph.width > 0 and glyph.height > 0
