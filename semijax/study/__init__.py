"""Statistics over many examples: a jitted analysis streamed over batches of any lengths."""

from semijax.study.means import Moments, Study
from semijax.study.study import run_study

__all__ = [
    "Moments",
    "Study",
    "run_study",
]
