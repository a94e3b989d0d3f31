"""One local Jacobian per primitive: the rules, by family, and the kinds to build new ones from."""

from semijax.jacobians.base import EquationJacobian as EquationJacobian
from semijax.jacobians.base import LocalJacobian as LocalJacobian
from semijax.jacobians.base import Table as Table
from semijax.jacobians.base import register_jacobian as register_jacobian
from semijax.jacobians.contraction import Contraction as Contraction
from semijax.jacobians.cumulative import CumulativeSum as CumulativeSum
from semijax.jacobians.complex import BothParts as BothParts
from semijax.jacobians.dense import Dense as Dense
from semijax.jacobians.dense import dense_budget as dense_budget
from semijax.jacobians.dense import dense_jacobian as dense_jacobian
from semijax.jacobians.diagonal import Diagonal as Diagonal
from semijax.jacobians.diagonal import Transposed as Transposed
from semijax.jacobians.diagonal import Reduction as Reduction
from semijax.jacobians.lookup import equation_jacobian as equation_jacobian
from semijax.jacobians.movement import DynamicSlice as DynamicSlice
from semijax.jacobians.movement import Movement as Movement
from semijax.jacobians.movement import Padding as Padding
from semijax.jacobians.movement import Permutation as Permutation
from semijax.jacobians.window import Convolution as Convolution
from semijax.jacobians.window import Pooling as Pooling

