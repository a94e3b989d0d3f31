"""The experiments of Du et al. (2023), as functions and as commands; ``notebooks/`` tell them.

Needs the ``demo`` extra; the rest of semijax doesn't import it.
"""
