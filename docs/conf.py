"""The site's settings: ``make docs`` builds it, offline, into ``docs/_build/html``.

Sphinx with MyST-NB and the book theme, because JAX, Flax and optax use them; Material for MkDocs,
which Equinox uses, has been in maintenance mode since November 2025 (its issue 8523).
"""

import shutil
from pathlib import Path

import semijax
from semijax.experiments import paper

ROOT = Path(__file__).parents[1]

# The notebooks lie beside the site: their pages are made of copies, which Git ignores.
shutil.copytree(
    ROOT / "notebooks",
    ROOT / "docs" / "notebooks",
    ignore=shutil.ignore_patterns("*.py", "output", "results", ".*", "__pycache__"),
    dirs_exist_ok=True,
)

# What paper.md includes is computed from the results that the notebooks quote.
(ROOT / "docs" / "paper_claims.md").write_text(paper.markdown(ROOT / "notebooks" / "results"))

project = "semijax"
author = "The semijax authors"
copyright = author
release = version = semijax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "paper_claims.md"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make notebooks` stores the outputs
nb_merge_streams = True

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what the arguments are, with shapes
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

nitpicky = True
# Other libraries', and what is not public: base classes and fields of classes in private modules.
nitpick_ignore_regex = [
    ("py:.*", r"(?!semijax).*"),
    ("py:class", r"semijax\.(\w+\.\w+|weighting|tables)\.\w+"),
]

html_theme = "sphinx_book_theme"
html_title = "semijax"
html_static_path = ["_static"]
html_css_files = ["semijax.css"]
html_theme_options = {
    "navbar_persistent": [],  # the search field is in the side bar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
copybutton_exclude = ".linenos, .gp, .go"
