"""Backpropagation in any semiring, as a JAX transformation: how a gradient flows.

The gradient is a sum over all paths of the computation graph; with another semiring the same sweep
computes another statistic of these paths. A map of the package:

*The transformations*, JAX's ``grad``, ``vjp`` and ``jvp`` with a semiring: ``semiring_grad``,
``semiring_value_and_grad``, ``semiring_vjp``, ``semiring_jvp``, ``aggregate``.

*The semirings*, the statistics: ``SumProduct``, ``AbsSumProduct``, ``MaxProduct``, ``MinProduct``,
``AbsMaxProduct``, ``TopK``, ``Entropy``, ``Expectation``, ``PathLength``, ``PathCount``,
``Reachability``; ``Semiring`` to write one.

*The weightings* of edges: ``Derivative``, ``Contrast`` with a second run,
``Relevance``; ``Weighting``, the base class for your own; ``residuals`` (``Residuals``) lists the
part of a difference that no path carries, and ``freeze`` blocks paths through arrays.

*The graph*: ``explain`` prints it, ``atomic`` makes a function one equation, ``register_jacobian``
gives a primitive its edges, ``dense_budget`` allows larger dense Jacobians; rules and features
receive an ``Equation``.

*Paths* as objects: ``top_paths``, ``trace_gradient``, ``sample_paths``, ``component_counts``,
``gradient_graph``, ``explorer`` (``Explorer``); ``Path``, ``Paths``.

*Flow* inside a model: ``list_sites``, ``tap``, ``scopes``, ``site_grads``, ``site_flow``,
``branch_flow`` (with ``REST``), ``component_flow``; their results ``SiteValues``, ``BranchFlow``,
``ComponentFlow``.

*Checks*: ``site_values``, ``ablate``, ``ablation_effects``, ``faithfulness`` (``Faithfulness``),
``randomization_test`` (``RandomizationTest``), and over a data set ``run_study`` (``Study``).

*Graphs* from other tools as functions: ``graph_function``.

*Packages*: ``jacobians``, the kinds of local Jacobian; ``graphs``; ``pictures``; ``testing``, which
enumerates all paths by brute force and checks a semiring's axioms; ``zoo`` and ``experiments``,
which are imported separately.
"""

from semijax import graphs, jacobians, pictures, testing
from semijax.explanation import explain
from semijax.exploration import Explorer, explorer
from semijax.flow import (
    BranchFlow,
    ComponentFlow,
    Faithfulness,
    RandomizationTest,
    Residuals,
    SiteValues,
    ablate,
    ablation_effects,
    branch_flow,
    component_flow,
    faithfulness,
    freeze,
    list_sites,
    randomization_test,
    residuals,
    site_flow,
    site_grads,
    site_values,
    tap,
)
from semijax.graphs import graph_function
from semijax.jacobians import control_flow as _control_flow  # noqa: F401, declares its rules
from semijax.jacobians import dense_budget, register_jacobian
from semijax.paths import (
    Path,
    Paths,
    component_counts,
    gradient_graph,
    sample_paths,
    top_paths,
    trace_gradient,
)
from semijax.semirings import (
    AbsMaxProduct,
    AbsSumProduct,
    Entropy,
    Expectation,
    MaxProduct,
    MinProduct,
    PathCount,
    PathLength,
    Reachability,
    Semiring,
    SumProduct,
    TopK,
)
from semijax.study import Study, run_study
from semijax.trace.graph import Equation
from semijax.trace.module_scopes import scopes
from semijax.trace.scope_names import REST
from semijax.transforms import (
    aggregate,
    atomic,
    semiring_grad,
    semiring_jvp,
    semiring_value_and_grad,
    semiring_vjp,
)
from semijax.weighting import Contrast, Derivative, Relevance, Weighting

__version__ = "0.1.0"

__all__ = [
    "REST",
    "AbsMaxProduct",
    "AbsSumProduct",
    "BranchFlow",
    "ComponentFlow",
    "Contrast",
    "Derivative",
    "Entropy",
    "Equation",
    "Expectation",
    "Explorer",
    "Faithfulness",
    "MaxProduct",
    "MinProduct",
    "Path",
    "PathCount",
    "PathLength",
    "Paths",
    "RandomizationTest",
    "Reachability",
    "Relevance",
    "Residuals",
    "Semiring",
    "SiteValues",
    "Study",
    "SumProduct",
    "TopK",
    "Weighting",
    "ablate",
    "ablation_effects",
    "aggregate",
    "atomic",
    "branch_flow",
    "component_counts",
    "component_flow",
    "dense_budget",
    "explain",
    "explorer",
    "faithfulness",
    "freeze",
    "gradient_graph",
    "graph_function",
    "graphs",
    "jacobians",
    "list_sites",
    "pictures",
    "randomization_test",
    "register_jacobian",
    "residuals",
    "run_study",
    "sample_paths",
    "scopes",
    "semiring_grad",
    "semiring_jvp",
    "semiring_value_and_grad",
    "semiring_vjp",
    "site_flow",
    "site_grads",
    "site_values",
    "tap",
    "testing",
    "top_paths",
    "trace_gradient",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
