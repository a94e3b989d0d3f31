"""What semijax shows: names in one list, each with a docstring, each on the map."""

import importlib
import inspect
import pkgutil
import re

import pytest

import semijax as sj

NAMES = ["flow", "graphs", "jacobians", "paths", "pictures", "semirings", "study", "testing", "zoo"]
PACKAGES = [sj, *(importlib.import_module(f"semijax.{name}") for name in NAMES)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_what_a_package_lists_is_there_and_documented(package):
    assert len(package.__all__) == len(set(package.__all__))
    for name in package.__all__:
        value = getattr(package, name)
        assert isinstance(value, str) or value.__doc__, name


def test_dir_shows_the_public_names_only():
    assert set(dir(sj)) == {*sj.__all__, "__version__"}


def test_the_docstring_is_a_map_of_them():
    named = set(re.findall(r"``(\w+)``", sj.__doc__))
    assert set(sj.__all__) <= named


def test_no_module_is_shadowed_by_a_function():
    for package in PACKAGES:
        modules = {found.name for found in pkgutil.iter_modules(package.__path__)}
        own = {n for n in package.__all__ if not inspect.ismodule(getattr(package, n))}
        assert not modules & own
