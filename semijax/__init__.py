"""How does a gradient flow? Backpropagation in any semiring, as a JAX transformation."""

from semijax import jacobians as jacobians
from semijax import pictures as pictures
from semijax import testing as testing
from semijax.explanation import explain as explain
from semijax.flow import BranchFlow as BranchFlow
from semijax.flow import ComponentFlow as ComponentFlow
from semijax.flow import Faithfulness as Faithfulness
from semijax.flow import RandomizationTest as RandomizationTest
from semijax.flow import SiteValues as SiteValues
from semijax.flow import ablate as ablate
from semijax.flow import branch_flow as branch_flow
from semijax.flow import component_flow as component_flow
from semijax.flow import faithfulness as faithfulness
from semijax.flow import list_sites as list_sites
from semijax.flow import randomization_test as randomization_test
from semijax.flow import site_flow as site_flow
from semijax.flow import site_grads as site_grads
from semijax.flow import site_values as site_values
from semijax.flow import tap as tap
from semijax.jacobians import control_flow as control_flow  # declares its rules
from semijax.jacobians import dense_budget as dense_budget
from semijax.jacobians import register_jacobian as register_jacobian
from semijax.paths import Path as Path
from semijax.paths import Paths as Paths
from semijax.paths import component_counts as component_counts
from semijax.paths import gradient_graph as gradient_graph
from semijax.paths import sample_paths as sample_paths
from semijax.paths import top_paths as top_paths
from semijax.paths import trace_gradient as trace_gradient
from semijax.semirings import AbsMaxProduct as AbsMaxProduct
from semijax.semirings import AbsSumProduct as AbsSumProduct
from semijax.semirings import Entropy as Entropy
from semijax.semirings import Expectation as Expectation
from semijax.semirings import MaxProduct as MaxProduct
from semijax.semirings import MinProduct as MinProduct
from semijax.semirings import PathCount as PathCount
from semijax.semirings import PathLength as PathLength
from semijax.semirings import Reachability as Reachability
from semijax.semirings import Semiring as Semiring
from semijax.semirings import SumProduct as SumProduct
from semijax.semirings import TopK as TopK
from semijax.study import Study as Study
from semijax.study import run_study as run_study
from semijax.trace.graph import Equation as Equation
from semijax.trace.module_scopes import scopes as scopes
from semijax.trace.scope_names import REST as REST
from semijax.transforms import aggregate as aggregate
from semijax.transforms import atomic as atomic
from semijax.transforms import semiring_grad as semiring_grad
from semijax.transforms import semiring_jvp as semiring_jvp
from semijax.transforms import semiring_value_and_grad as semiring_value_and_grad
from semijax.transforms import semiring_vjp as semiring_vjp

__version__ = "0.1.0"
