"""The flow between the modules of a model, token by token, as data and as an interactive page."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semijax import checks, page
from semijax.exploration.content import Content, readings
from semijax.exploration.grid import Grid
from semijax.paths.call import Call
from semijax.paths.path import Paths
from semijax.paths.scores import STRONGEST
from semijax.paths.search import Search
from semijax.sites.axis_names import StatedAxes
from semijax.sites.program import Argnums
from semijax.weighting import DERIVATIVE, Weighting, check_weighting

VERSION = 1
"""The version of the schema of the page's data."""


@dataclasses.dataclass(frozen=True, repr=False)
class Explorer:
    """The flow between the modules of a model, token by token. Immutable.

    In a notebook it shows the page itself; ``save`` writes the page to a file.

    Attributes:
        title: what was explored.
        tokens: how many tokens there are; 0 if no axis is known to count them.
        stories: the best path of each of the best stories. A story is a sequence of nodes, each
            one module at one token.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def model(x):
        ...     for n in range(2):
        ...         with jax.named_scope(f"layer_{n}"):
        ...             x = x + jnp.tanh(x)
        ...     return x.sum()
        >>> found = sj.explorer(model, axes={"[0]": ("token", None)})(jnp.ones((3, 2)))
        >>> found.tokens, len(found.stories)
        (3, 3)
        >>> found.save("page.html", tokens=["a", "b", "c"])  # doctest: +SKIP
    """

    title: str
    tokens: int
    stories: Paths
    _content: Mapping[str, Any]

    def to_json(self, tokens: Sequence[str] | None = None) -> str:
        """Return the data of the page as JSON, schema version 1.

        ``rows`` are modules in the order of computation, ``columns`` tokens, ``readings`` the
        semirings. ``nodes`` and ``edges`` are columns of a table each, with one list of numbers for
        each reading; what JSON has no number for is a string.

        Args:
            tokens: the texts of the tokens; by default their numbers.

        Raises:
            ValueError: if there are fewer texts than tokens.
        """
        texts = [str(n) for n in range(self.tokens)] if tokens is None else [*map(str, tokens)]
        if len(texts) < self.tokens:
            raise ValueError(f"tokens has {len(texts)} texts for {self.tokens} tokens.")
        numbered = zip(self._content["stories"], self.stories, strict=True)
        content = {
            **self._content,
            "columns": texts[: self.tokens] or [""],
            "stories": [
                {**story, "told": path.route(None if tokens is None else texts)}
                for story, path in numbered
            ],
        }
        return json.dumps(page.finite(content), separators=(",", ":"))

    def to_html(self, tokens: Sequence[str] | None = None) -> str:
        """Return the page: one self-contained file that needs no network.

        Args:
            tokens: as for ``to_json``.
        """
        template = importlib.resources.files("semijax.exploration").joinpath("explorer.html")
        data = self.to_json(tokens).replace("<", "\\u003c")  # no text of it can end the script
        return template.read_text(encoding="utf-8").replace(PLACEHOLDER, data, 1)

    def save(self, path: str | os.PathLike[str], tokens: Sequence[str] | None = None) -> None:
        """Write the page as ``.html``, or its data as ``.json``.

        Args:
            path: where to.
            tokens: as for ``to_json``.

        Raises:
            ValueError: if the name ends in something else.
        """
        formats = {".html": lambda: self.to_html(tokens), ".json": lambda: self.to_json(tokens)}
        page.save(path, formats)

    def __repr__(self) -> str:
        nodes, edges = (
            len(self._content[key][of]) for key, of in (("nodes", "row"), ("edges", "tail"))
        )
        return (
            f"Explorer({self.title}: {nodes} nodes, {edges} edges, {len(self.stories)} stories; "
            "save('page.html') writes the page)"
        )

    def _repr_html_(self) -> str:
        return page.frame(self.to_html(), height=720)


PLACEHOLDER = "{{DATA}}"
"""The place of the data in the page that ``make explorer`` builds."""


def explorer(
    fun: Callable[..., Any],
    *,
    semirings: Any = None,
    argnums: int | Sequence[int] = 0,
    source: Any = None,
    depth: int | None = None,
    k: int = 20,
    share: float = 1.0,
    max_edges: int = 5000,
    axes: StatedAxes = None,
    traced: Argnums = None,
    weighting: Weighting = DERIVATIVE,
) -> Callable[..., Explorer]:
    """Show how the gradient of ``fun`` flows on an interactive page: modules × tokens, and stories.

    A node on the page is a module at a token. An edge carries the exact ⊕ of all complete paths
    that cross from one node to another. Each visit to a module has a row of its own: a block that
    adds the output of attention and later that of the MLP has several.

    Args:
        fun: a function of arrays, or pytrees of arrays, that returns a real scalar.
        semirings: the semirings that the page can switch between: one, several, or a dict from the
            names shown on the page to semirings. The mass, ``AbsSumProduct``, is always among them,
            shown as shares. By default, so is ``AbsMaxProduct``, the strongest path; and if paths
            carry what they contribute to a difference, their sum, ``SumProduct``, comes first.
        argnums: the positional argument(s) where paths start.
        source: where they start in place of these, see ``top_paths``.
        depth: modules are told apart by this many names of their scope, from the outside; by all
            names by default.
        k: how many stories are listed, see ``distinct`` of ``top_paths``.
        share: for each semiring, store the largest edges that together have this much of the sum
            of all sizes, a number in (0, 1].
        max_edges: the most edges to store, an equal number for each semiring.
        axes: as for ``top_paths``.
        traced: as for ``top_paths``.
        weighting: what the edges weigh, see ``semiring_grad``.

    Returns:
        A function with the arguments of ``fun`` that returns an ``Explorer``.

    Raises:
        FloatingPointError: where a local derivative on the way is infinite or not a number.
        ValueError: if no path leads to the output, or an option is invalid.
        TypeError, jax.errors.ConcretizationTypeError: as ``top_paths``.

    Example:
        >>> import jax, jax.numpy as jnp, semijax as sj
        >>> def f(x):
        ...     with jax.named_scope("mlp"):
        ...         y = jnp.tanh(x @ jnp.ones((3, 3)))
        ...     return jnp.sum(x + y)
        >>> sj.explorer(f)(jnp.ones(3))
        Explorer(f: 3 nodes, 3 edges, 2 stories; save('page.html') writes the page)
    """
    checks.check_callable(fun)
    checks.check_depth(depth)
    check_weighting(weighting)
    k = checks.check_positive("k", k)
    max_edges = checks.check_positive("max_edges", max_edges)
    checks.check_share(share)
    read = readings(semirings, weighting)

    @functools.wraps(fun, assigned=("__module__", "__name__", "__qualname__"))
    def explore(*args: Any, **kwargs: Any) -> Explorer:
        where = argnums, source, None, traced
        how = {"axes": axes, "caller": "explorer", "weighting": weighting}
        call = Call(fun, args, kwargs, *where, **how)
        title = getattr(fun, "__name__", type(fun).__name__)
        search = Search(call, STRONGEST)
        if search.scores is None or not search.sources:
            raise ValueError(f"There is nothing to explore: {search.explanation}.")
        grid = Grid(call, depth)
        content = Content(search, grid, read, k, share, max_edges)
        paths, data = Paths(content.stories, search.explanation), content.to_dict()
        return Explorer(title, grid.tokens, paths, {"version": VERSION, "title": title, **data})

    return explore
