"""The experiments of Du et al. (2023), as functions and commands; ``notebooks/`` explain them.

Needs the ``demo`` extra; the rest of semijax doesn't import it.
"""
