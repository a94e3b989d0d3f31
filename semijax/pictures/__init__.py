"""Pictures for a paper or a notebook: tokens, layers × tokens, branches' shares, paths, curves.

Every picture states its sign, unit and normalisation. Needs the ``plot`` extra.
"""

from semijax.pictures.bars import curves as curves
from semijax.pictures.bars import grouped_bars as grouped_bars
from semijax.pictures.bars import stacked_bars as stacked_bars
from semijax.pictures.grid import path_grid as path_grid
from semijax.pictures.picture import Picture as Picture
from semijax.pictures.values import heat_map as heat_map
from semijax.pictures.values import token_strip as token_strip
