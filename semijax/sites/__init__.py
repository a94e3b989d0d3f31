"""Intermediate arrays by name: what can be asked for in a function, and where paths start."""

from semijax.sites.listing import list_sites as list_sites
from semijax.sites.site import tap as tap
