"""Where a gradient goes inside of a model: through which arrays, which branches, which modules."""

from semijax.flow.at_sites import SiteValues as SiteValues
from semijax.flow.at_sites import list_sites as list_sites
from semijax.flow.at_sites import site_flow as site_flow
from semijax.flow.at_sites import site_grads as site_grads
from semijax.flow.sites import tap as tap
