"""Where a gradient goes inside of a model: through which arrays, which branches, which modules."""

from semijax.flow.ablation import ablate as ablate
from semijax.flow.ablation import site_values as site_values
from semijax.flow.at_sites import SiteValues as SiteValues
from semijax.flow.at_sites import list_sites as list_sites
from semijax.flow.at_sites import site_flow as site_flow
from semijax.flow.at_sites import site_grads as site_grads
from semijax.flow.branches import BranchFlow as BranchFlow
from semijax.flow.branches import branch_flow as branch_flow
from semijax.flow.components import ComponentFlow as ComponentFlow
from semijax.flow.components import component_flow as component_flow
from semijax.flow.faithfulness_curves import Faithfulness as Faithfulness
from semijax.flow.faithfulness_curves import faithfulness as faithfulness
from semijax.flow.randomization import RandomizationTest as RandomizationTest
from semijax.flow.randomization import randomization_test as randomization_test
from semijax.flow.sites import tap as tap
