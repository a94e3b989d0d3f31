"""What is computed of the paths: the semirings."""

from semijax.semirings.base import Semiring as Semiring
from semijax.semirings.expectation import Entropy as Entropy
from semijax.semirings.expectation import Expectation as Expectation
from semijax.semirings.expectation import PathCount as PathCount
from semijax.semirings.expectation import PathLength as PathLength
from semijax.semirings.expectation import Weighted as Weighted
from semijax.semirings.order import AbsMaxProduct as AbsMaxProduct
from semijax.semirings.order import Interval as Interval
from semijax.semirings.order import MaxProduct as MaxProduct
from semijax.semirings.order import MinProduct as MinProduct
from semijax.semirings.order import OperationGranularity as OperationGranularity
from semijax.semirings.order import Reachability as Reachability
from semijax.semirings.order import TopK as TopK
from semijax.semirings.product import Product as Product
from semijax.semirings.product import as_semiring as as_semiring
from semijax.semirings.real import AbsSumProduct as AbsSumProduct
from semijax.semirings.real import SumProduct as SumProduct
