"""Small trained models to look at: a synthetic task, a transformer and its trainer.

Needs the ``demo`` extra (Flax, Optax, tqdm); the rest of semijax doesn't import it.
"""

from semijax.zoo.tasks import Dataset, Splits, first_token_repeated_once, split
from semijax.zoo.training import Trained, load, mistakes, predict, save, train
from semijax.zoo.transformer import SequenceClassifier

__all__ = [
    "Dataset",
    "SequenceClassifier",
    "Splits",
    "Trained",
    "first_token_repeated_once",
    "load",
    "mistakes",
    "predict",
    "save",
    "split",
    "train",
]
