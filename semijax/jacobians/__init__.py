"""One local Jacobian per primitive: the rules, by family, and the kinds to build new ones from."""

from semijax.jacobians.along_axis import AlongAxis
from semijax.jacobians.base import EquationJacobian, LocalJacobian, Table, register_jacobian
from semijax.jacobians.complex import BothParts, PartByPart
from semijax.jacobians.contraction import Contraction
from semijax.jacobians.cumulative import CumulativeSum
from semijax.jacobians.dense import Dense, dense_budget, dense_jacobian
from semijax.jacobians.diagonal import Diagonal, Reduction, Transposed
from semijax.jacobians.edges import Edges
from semijax.jacobians.line import Line
from semijax.jacobians.lookup import averaged_jacobian, equation_jacobian
from semijax.jacobians.movement import DynamicSlice, Movement, Padding, Permutation
from semijax.jacobians.window import Convolution, Pooling

__all__ = [
    "AlongAxis",
    "BothParts",
    "Contraction",
    "Convolution",
    "CumulativeSum",
    "Dense",
    "Diagonal",
    "DynamicSlice",
    "Edges",
    "EquationJacobian",
    "Line",
    "LocalJacobian",
    "Movement",
    "Padding",
    "PartByPart",
    "Permutation",
    "Pooling",
    "Reduction",
    "Table",
    "Transposed",
    "averaged_jacobian",
    "dense_budget",
    "dense_jacobian",
    "equation_jacobian",
    "register_jacobian",
]
