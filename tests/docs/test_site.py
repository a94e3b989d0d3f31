"""Builds the site with warnings as errors; checks its links and its pages of public names."""

import doctest
import html.parser
import importlib
import inspect
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parents[2]
PACKAGES = (
    "semijax",
    "semijax.exploration",
    "semijax.flow",
    "semijax.graphs",
    "semijax.jacobians",
    "semijax.paths",
    "semijax.pictures",
    "semijax.semirings",
    "semijax.study",
    "semijax.testing",
    "semijax.zoo",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    options = ("--jobs=auto", "--fail-on-warning", "--keep-going", "--nitpicky", "--quiet")
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(target)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return target


class Page(html.parser.HTMLParser):
    """The anchors of a page, and where its links and pictures lead."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.targets = set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        self.targets |= {found[key] for key in ("href", "src") if found.get(key)}


@pytest.fixture(scope="module")
def pages(site):
    other = {"_downloads", "_static"}  # the explorer's page; templates of the theme
    return {path: Page(path) for path in site.rglob("*.html") if not other & set(path.parts)}


def test_no_link_is_dead(site, pages):
    dead = []
    for path, page in pages.items():
        for target in page.targets:
            url = urllib.parse.urlsplit(target)
            if url.scheme or url.netloc:
                continue
            name = urllib.parse.unquote(url.path)
            to = (path.parent / name).resolve() if name else path
            anchor = urllib.parse.unquote(url.fragment)
            if not to.exists() or (anchor and to in pages and anchor not in pages[to].anchors):
                dead.append(f"{path.relative_to(site)}: {target}")
    assert len(pages) > 150 and not dead


def public_names():
    """Every public object, with all names it has: functions and classes once."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.ismodule(thing):
                continue
            key = id(thing) if callable(thing) else f"{package}.{name}"
            found.setdefault(key, (thing, set()))[1].add(f"{package}.{name}")
    return list(found.values())


def has_example(thing):
    """Tell whether its docstring, or that of a method, has an example that pytest runs."""
    documented = [thing, *vars(thing).values()] if inspect.isclass(thing) else [thing]
    return any(">>> " in (getattr(each, "__doc__", None) or "") for each in documented)


def test_every_public_name_has_a_page_with_an_example(site, pages):
    anchors = set().union(*(page.anchors for path, page in pages.items() if "api" in path.parts))
    things = public_names()
    assert len(things) > 140
    assert not [names for _, names in things if not names & anchors]
    assert not [names for thing, names in things if callable(thing) and not has_example(thing)]


@pytest.mark.parametrize("name", ["semijax", "zoo"])
def test_the_examples_in_the_reference_run(name):
    """Those of constants, which have no docstring."""
    path = ROOT / "docs" / "api" / f"{name}.rst"
    failed, tried = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert tried and not failed


def test_the_site_needs_no_other_site(pages):
    """Scripts and style sheets are its own: it can be read offline."""
    for page in pages.values():
        fetched = [t for t in page.targets if t.startswith(("http", "//")) and ".js" in t]
        assert not fetched
