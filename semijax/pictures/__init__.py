"""Pictures for a paper or a notebook: tokens, layers × tokens, branches' shares, paths, curves.

Every picture has a caption that says what its numbers are. Needs the ``plot`` extra.
"""

from semijax.pictures.bars import curves, grouped_bars, stacked_bars
from semijax.pictures.grid import path_grid
from semijax.pictures.picture import Picture
from semijax.pictures.values import heat_map, overlay, token_strip

__all__ = [
    "Picture",
    "curves",
    "grouped_bars",
    "heat_map",
    "overlay",
    "path_grid",
    "stacked_bars",
    "token_strip",
]
