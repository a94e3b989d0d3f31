"""The explorer: a page for the browser that shows the paths of a model and what flows."""

from semijax.exploration.explorer import Explorer, explorer

__all__ = ["Explorer", "explorer"]
