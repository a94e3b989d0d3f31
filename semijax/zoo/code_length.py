"""The difficulty of a task: the bits to send its labels by a model that learns on the way."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from semijax import checks
from semijax.zoo.tasks import Dataset

SHARES = (1, 1, 2, 2, 4, 8, 18, 36, 36, 72, 144, 288, 288, 900)
"""The shares of the data that Du et al.'s blocks have, in eighteenths of a percent."""

Predict = Callable[[np.ndarray], Any]
"""A map from int32 tokens ``[n, length]`` to float logits or log-probabilities ``[n, classes]``."""


@dataclasses.dataclass(frozen=True)
class CodeLength:
    """The cost of sending the labels, block by block.

    Attributes:
        classes: how many labels there could have been.
        sizes: how many examples each block has.
        losses: the mean of -log p(label) over each block, in nats, for the model trained on the
            blocks before it; for the first, log(``classes``).

    Example:
        >>> import math
        >>> from semijax import zoo
        >>> length = zoo.CodeLength(classes=2, sizes=(10, 90), losses=(math.log(2), 0.1))
        >>> print(f"{length.bits:.1f} bits, {length.compression:.1f} times fewer than uniformly")
        23.0 bits, 4.4 times fewer than uniformly
    """

    classes: int
    sizes: tuple[int, ...]
    losses: tuple[float, ...]

    @property
    def bits(self) -> float:
        """The length of the code; infinite if a model thought a label impossible."""
        nats = sum(size * loss for size, loss in zip(self.sizes, self.losses, strict=True))
        return nats / math.log(2)

    @property
    def uniform_bits(self) -> float:
        """The length of the code that gives all classes the same probability, always."""
        return sum(self.sizes) * math.log2(self.classes)

    @property
    def compression(self) -> float:
        """The ratio ``uniform_bits / bits``: about 1 if nothing is learnt, high if all is soon."""
        return self.uniform_bits / self.bits

    @property
    def published(self) -> float:
        """The axis of Du et al. (2023), Figure 5, in nats. It is not the length of a code.

        The first block counts with its sum of -log p, every other one, of whatever size, with its
        mean.
        """
        return self.sizes[0] * self.losses[0] + sum(self.losses[1:])


def online_code_length(
    fit: Callable[[Dataset], Predict],
    data: Dataset,
    *,
    classes: int,
    blocks: Sequence[int] | None = None,
) -> CodeLength:
    """Compute the length of the labels in the online code, given the tokens.

    The data is cut into blocks. The labels of the first are sent in a uniform code over the
    classes; those of each further one in the code of a model θᵢ that was trained on all blocks
    before it, as the receiver could have done too:

        L = n₁ log₂ K − Σᵢ log₂ p(labels of block i + 1 | its tokens; θᵢ)

    A task that is learnt from few examples has a short code. Blocks are sent in the order of the
    data: ``interleave`` it first if the small blocks at its beginning are to hold all classes.

    Where training takes long, let ``fit`` keep each model under the number of examples it was
    trained on: a run that starts again then goes on where it was killed. No model is trained on all
    the data; if it is wanted, ``fit(data)`` trains it.

    Args:
        fit: trains a new model on tokens and labels, and returns a function from tokens, int32
            ``[n, length]``, to the logits (or log-probabilities) of the labels, float
            ``[n, classes]``. A model that is called this way will do.
        data: tokens ``[n, length]`` and labels ``[n]``.
        classes: the number of labels that the model and the uniform code know, at least 2. It may
            be more than the data has; these cost bits until the model has learnt to leave them out.
        blocks: how many examples each block has, ``n`` in all; by default ``paper_blocks(n)``.

    Raises:
        ValueError: if the blocks don't add up to the data, labels aren't classes, or predictions
            have another shape or are NaN.

    Source: the prequential code of Rissanen 1984 and Dawid 1984; for deep networks Blier and
    Ollivier 2018; as a measure of effort Voita and Titov 2020 ("online code").

    Example:
        >>> import numpy as np
        >>> from semijax.zoo.code_length import online_code_length
        >>> from semijax.zoo.tasks import Contains1
        >>> def fit(training):  # whatever the training, it is right with probability 7/8
        ...     return lambda tokens: np.log([7 / 8, 1 / 8])[task.label(tokens)[:, None] ^ [0, 1]]
        >>> task = Contains1()
        >>> length = online_code_length(fit, task.sample(100), classes=2, blocks=[2, 8, 90])
        >>> round(length.bits, 2)  # 2 + 98 log₂ 8/7
        20.88
        >>> length.uniform_bits
        100.0
    """
    checks.check_callable(fit)
    n = len(data.labels)
    sizes = paper_blocks(n) if blocks is None else tuple(map(operator.index, blocks))
    if sum(sizes) != n or min(sizes, default=0) < 1:
        raise ValueError(f"Expected blocks of at least 1 that sum to {n} examples. Got {sizes}.")
    if classes < 2 or data.labels.min() < 0 or data.labels.max() >= classes:
        raise ValueError(
            "Expected at least 2 classes, and labels of 0 .. classes - 1. Got "
            f"classes={classes} and labels of {data.labels.min()} .. {data.labels.max()}."
        )
    losses = [math.log(classes)]
    for start, end in itertools.pairwise(itertools.accumulate(sizes)):
        predict = fit(Dataset(data.tokens[:start], data.labels[:start]))
        logits = np.asarray(predict(data.tokens[start:end]), np.float64)
        losses.append(_mean_loss(logits, data.labels[start:end], classes))
    return CodeLength(classes, sizes, tuple(losses))


def paper_blocks(n: int) -> tuple[int, ...]:
    """Return the sizes of the 14 growing blocks of Du et al. (2023) for ``n`` examples.

    They are 1/18, 1/18, 1/9, 1/9, 2/9, 4/9, 1, 2, 2, 4, 8, 16, 16 and 50 % of ``n``, rounded up;
    the last is what is left.

    Raises:
        ValueError: if nothing is left.

    Example:
        >>> from semijax.zoo.code_length import paper_blocks
        >>> paper_blocks(3600)
        (2, 2, 4, 4, 8, 16, 36, 72, 72, 144, 288, 576, 576, 1800)
    """
    *first, _ = (-(-n * share // sum(SHARES)) for share in SHARES)
    if sum(first) >= n:
        raise ValueError(f"{n} examples are too few for the {len(SHARES)} blocks of the paper.")
    return (*first, n - sum(first))


def interleave(data: Dataset) -> Dataset:
    """Sort examples so that the classes take turns, while there are any of them.

    So even the first blocks of a code hold many classes, as in the released code of Du et al.
    (2023). Within a class the order stays. Note that the order of all then depends on the labels:
    strictly, one would have to send it too.

    Args:
        data: tokens ``[n, length]`` and labels ``[n]``.

    Example:
        >>> import numpy as np
        >>> from semijax.zoo.code_length import interleave
        >>> from semijax.zoo.tasks import Dataset
        >>> interleave(Dataset(np.arange(7)[:, None], np.array([1, 1, 0, 1, 1, 0, 2]))).labels
        array([0, 1, 2, 0, 1, 1, 1])
    """
    turn = np.empty(len(data.labels), int)  # how many of its class come before
    for label in np.unique(data.labels):
        own = data.labels == label
        turn[own] = np.arange(own.sum())
    order = np.lexsort((data.labels, turn))
    return Dataset(data.tokens[order], data.labels[order])


def _mean_loss(logits: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Return the mean of -log p(label), in nats."""
    if logits.shape != (len(labels), classes):
        raise ValueError(
            f"Expected logits of shape {(len(labels), classes)}. Got shape {logits.shape}."
        )
    with np.errstate(invalid="ignore"):  # ∞ - ∞ is NaN
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    if np.isnan(log_p).any():
        raise ValueError("Logits are NaN, or infinite in a way that leaves no probabilities.")
    return float(-log_p[np.arange(len(labels)), labels].mean())
