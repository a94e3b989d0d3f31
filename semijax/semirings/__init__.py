"""The semirings: what is computed from the paths."""

from semijax.semirings.base import Semiring
from semijax.semirings.expectation import Entropy, Expectation, PathLength, Weighted
from semijax.semirings.mass import AbsSumProduct, PathCount
from semijax.semirings.order import (
    AbsMaxProduct,
    Interval,
    MaxProduct,
    MinProduct,
    OperationGranularity,
    Reachability,
    TopK,
)
from semijax.semirings.product import Product, as_semiring
from semijax.semirings.real import SumProduct

__all__ = [
    "AbsMaxProduct",
    "AbsSumProduct",
    "Entropy",
    "Expectation",
    "Interval",
    "MaxProduct",
    "MinProduct",
    "OperationGranularity",
    "PathCount",
    "PathLength",
    "Product",
    "Reachability",
    "Semiring",
    "SumProduct",
    "TopK",
    "Weighted",
    "as_semiring",
]
