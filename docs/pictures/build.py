"""Draws the site's pictures: ``python docs/pictures/build.py``, or ``make docs-pictures``.

``paths.svg`` is the graph of the small function of Figure 1 of Du et al. 2023. ``explorer.html`` is
the explorer on the README's decoder; ``explorer.mjs`` takes ``explorer.png`` of it.
"""

import contextlib
import io
import re
from pathlib import Path

import jax.numpy as jnp

import semijax as sj

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"


def f(x, y):
    return jnp.exp(x) + (x - y) * y


def readme():
    """What the README's blocks define."""
    names = {"__name__": "readme"}
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks:
            exec(block, names)
    return names


def main():
    graph = sj.gradient_graph(f, argnums=(0, 1))(0.0, 3.0)
    (HERE / "paths.svg").write_text(graph._repr_html_() + "\n")
    names = readme()
    with sj.scopes(names["model"]):
        page = sj.explorer(names["logit_difference"], **names["how"])(names["tokens"])
    page.save(HERE / "explorer.html", tokens=[str(token) for token in names["tokens"].tolist()])


if __name__ == "__main__":
    main()
