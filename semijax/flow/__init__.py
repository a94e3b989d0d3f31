"""The flow of a gradient inside a model: through its arrays, its branches, its modules."""

from semijax.flow.ablation import ablate, ablation_effects, site_values
from semijax.flow.at_sites import SiteValues, site_flow, site_grads
from semijax.flow.branches import BranchFlow, branch_flow
from semijax.flow.components import ComponentFlow, component_flow
from semijax.flow.faithfulness_curves import Faithfulness, faithfulness
from semijax.flow.freezing import freeze
from semijax.flow.randomization import RandomizationTest, randomization_test
from semijax.flow.remainders import Residuals, residuals
from semijax.sites import list_sites, tap

__all__ = [
    "BranchFlow",
    "ComponentFlow",
    "Faithfulness",
    "RandomizationTest",
    "Residuals",
    "SiteValues",
    "ablate",
    "ablation_effects",
    "branch_flow",
    "component_flow",
    "faithfulness",
    "freeze",
    "list_sites",
    "randomization_test",
    "residuals",
    "site_flow",
    "site_grads",
    "site_values",
    "tap",
]
