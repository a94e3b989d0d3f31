"""The explorer: one page, to be opened in a browser, with the paths of a model and what flows."""

from semijax.exploration.explorer import Explorer, explorer

__all__ = ["Explorer", "explorer"]
