"""Tools to check a semiring, and an oracle to check a sweep against."""

from semijax.testing.axioms import check_semiring
from semijax.testing.enumeration import EnumeratedPath, Paths, enumerate_paths

__all__ = ["EnumeratedPath", "Paths", "check_semiring", "enumerate_paths"]
