"""The experiments of Du et al. (2023) and others, as functions and commands; see ``notebooks/``.

Needs the ``demo`` extra; the rest of semijax doesn't import it.
"""
