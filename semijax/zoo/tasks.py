"""The synthetic task of the demo: does the first token come back?"""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Token sequences and what they are labelled with.

    Attributes:
        tokens: int32 ``[n, length]``.
        labels: int32 ``[n]``.
    """

    tokens: np.ndarray
    labels: np.ndarray


class Splits(NamedTuple):
    """One dataset cut into three disjoint ones."""

    train: Dataset
    validation: Dataset
    test: Dataset


def first_token_repeated_once(
    n: int = 10_000, *, length: int = 10, vocabulary: int = 20, seed: int = 0
) -> Dataset:
    """Draws sequences that repeat their first token exactly once (label 1) or never (label 0).

    FirstTokenRepeatedOnce of Du et al. (2023), Section 5.1. The first token is uniform over
    ``1 .. vocabulary - 1`` (0 is reserved), the others are uniform over the tokens that differ from
    it, and in a sequence with label 1 one uniformly drawn later position holds it again. Half of
    the labels are 1 (one fewer where ``n`` is odd), in random order.

    Args:
        n: the number of sequences.
        length: tokens per sequence, at least 2.
        vocabulary: the number of token ids, the reserved 0 included; at least 3.
        seed: equal arguments and seeds give equal data.

    Returns:
        Tokens int32 ``[n, length]`` and labels int32 ``[n]``.

    Raises:
        ValueError: if there is no room for a repetition or for a second token.

    Example:
        >>> tokens, labels = first_token_repeated_once(6)
        >>> (tokens[:, 1:] == tokens[:, :1]).sum(axis=1) == labels
        array([ True,  True,  True,  True,  True,  True])
    """
    if n < 0 or length < 2 or vocabulary < 3:
        raise ValueError(
            "first_token_repeated_once needs n >= 0, length >= 2 and vocabulary >= 3. "
            f"Got n={n}, length={length}, vocabulary={vocabulary}."
        )
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 2)
    first = rng.integers(1, vocabulary, size=(n, 1))
    others = rng.integers(1, vocabulary - 1, size=(n, length - 1))
    others += others >= first  # skips the first token, and stays uniform over the rest
    tokens = np.concatenate([first, others], axis=1)
    repeat = rng.integers(1, length, size=n)
    tokens[labels == 1, repeat[labels == 1]] = first[labels == 1, 0]
    return Dataset(tokens.astype(np.int32), labels.astype(np.int32))


def split(data: Dataset, *, train: float = 0.7, validation: float = 0.1) -> Splits:
    """Cuts a dataset, in the order it has, into training, validation and test data.

    Args:
        data: tokens ``[n, length]`` and labels ``[n]``, already in random order.
        train: the fraction to train on.
        validation: the fraction to validate on; what is left over is the test data.

    Raises:
        ValueError: if a fraction is negative or the two sum to more than 1.
    """
    if min(train, validation) < 0 or train + validation > 1:
        raise ValueError(
            "The fractions of a split must be at least 0 and sum to at most 1. "
            f"Got train={train}, validation={validation}."
        )
    n = len(data.labels)
    cuts = [round(n * train), round(n * (train + validation))]
    tokens, labels = np.split(data.tokens, cuts), np.split(data.labels, cuts)
    return Splits(*map(Dataset, tokens, labels))
