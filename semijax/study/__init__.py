"""Statistics over many examples: a jitted analysis streamed over batches of any lengths."""

from semijax.study.means import Moments as Moments
from semijax.study.means import Study as Study
from semijax.study.study import run_study as run_study
