"""Synthetic tasks: labelled sequences of tokens with a known rule and even classes."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from semijax import checks


class Dataset(NamedTuple):
    """Token sequences and their labels.

    Attributes:
        tokens: int32 ``[n, length]``.
        labels: int32 ``[n]``.

    Example:
        >>> from semijax import zoo
        >>> data = zoo.Contains1(length=3, vocabulary=9).sample(4, seed=0)
        >>> data.tokens.shape, data.labels.shape
        ((4, 3), (4,))
    """

    tokens: np.ndarray
    labels: np.ndarray


class Splits(NamedTuple):
    """One dataset cut into three disjoint ones.

    Example:
        >>> from semijax import zoo
        >>> data = zoo.Contains1(length=3, vocabulary=9).sample(10, seed=0)
        >>> splits = zoo.split(data, train=0.7, validation=0.1)
        >>> len(splits.train.labels), len(splits.validation.labels), len(splits.test.labels)
        (7, 1, 2)
    """

    train: Dataset
    validation: Dataset
    test: Dataset


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """The base of all tasks: ``sample`` draws examples, ``label`` labels any sequence.

    The tasks are those of Du et al. (2023), drawn from the distributions of their released code.
    "Uniform" is over the tokens ``1 .. vocabulary - 1``; 0 is reserved.

    Args:
        length: tokens per sequence, at least 2.
        vocabulary: the number of token ids, the reserved 0 included; at least 3.

    Raises:
        ValueError: if a sequence is too short, there are too few tokens, or they don't suit the
            task.
    """

    length: int = 10
    vocabulary: int = 20

    def __post_init__(self) -> None:
        if self.length < 2 or self.vocabulary < 3:
            raise ValueError(
                f"{type(self).__name__} needs length >= 2 and vocabulary >= 3. "
                f"Got length={self.length}, vocabulary={self.vocabulary}."
            )

    @property
    def name(self) -> str:
        """The name in a plot's legend."""
        return type(self).__name__

    @property
    def classes(self) -> int:
        """The number of labels, which are ``0 .. classes - 1``."""
        return 2

    def sample(self, n: int, *, seed: int = 0) -> Dataset:
        """Draw examples, equally many of each class, in random order.

        Args:
            n: how many. If ``classes`` doesn't divide it, the lower classes have one more.
            seed: equal tasks, arguments and seeds give equal data.

        Returns:
            Tokens int32 ``[n, length]`` and labels int32 ``[n]``.

        Raises:
            ValueError: if ``n`` is negative.

        Example:
            >>> from semijax.zoo.tasks import FirstTokenRepeatedOnce
            >>> task = FirstTokenRepeatedOnce()
            >>> tokens, labels = task.sample(6)
            >>> task.label(tokens) == labels
            array([ True,  True,  True,  True,  True,  True])
        """
        if n < 0:
            raise ValueError(f"The number of examples must be at least 0. Got {n}.")
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.arange(n) % self.classes)
        tokens = self._examples(rng, labels)
        return Dataset(tokens.astype(np.int32), labels.astype(np.int32))

    def label(self, tokens: np.typing.ArrayLike) -> np.ndarray:
        """Label sequences, including those that ``sample`` doesn't draw.

        Args:
            tokens: int ``[..., length]``.

        Returns:
            int32 ``[...]``; of two classes, 1 is True.

        Raises:
            ValueError: if sequences have another length, or the task doesn't say what they are.
        """
        tokens = np.asarray(tokens)
        if tokens.shape[-1:] != (self.length,):
            raise ValueError(f"Expected tokens [..., {self.length}]. Got shape {tokens.shape}.")
        return np.asarray(self._label(tokens), np.int32)

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        """Draw one sequence for each label."""
        raise NotImplementedError

    def _uniform(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.integers(1, self.vocabulary, (n, self.length))

    def _others(self, rng: np.random.Generator, tokens: np.ndarray) -> np.ndarray:
        """Draw sequences uniform over the tokens that differ from the given one, int ``[n, 1]``."""
        others = rng.integers(1, self.vocabulary - 1, (len(tokens), self.length))
        return others + (others >= tokens)


class FirstTokenRepeatedOnce(Task):
    """The task to tell whether the first token comes back exactly once.

    The other tokens are uniform over those that differ from the first. In a True example, it comes
    back at a uniform position; in a False one, never.

    Example:
        >>> from semijax import zoo
        >>> task = zoo.FirstTokenRepeatedOnce(length=4, vocabulary=9)
        >>> print(task.label([[4, 4, 2, 3], [4, 4, 2, 4], [4, 5, 6, 7]]))
        [1 0 0]
    """

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        return (tokens[..., 1:] == tokens[..., :1]).sum(axis=-1) == 1

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        first = rng.integers(1, self.vocabulary, (len(labels), 1))
        tokens = self._others(rng, first)
        repeat = rng.integers(1, self.length, (len(labels), 1)) * labels[:, None]
        position = np.arange(self.length)
        return np.where((position == 0) | (position == repeat), first, tokens)


class FirstTokenRepeatedImmediately(Task):
    """The task to tell whether the second token is the first.

    The tokens after it are uniform; in a True example, over those that differ from the first.

    Example:
        >>> from semijax import zoo
        >>> task = zoo.FirstTokenRepeatedImmediately(length=3, vocabulary=9)
        >>> print(task.label([[4, 4, 2], [4, 5, 4]]))
        [1 0]
    """

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        return tokens[..., 1] == tokens[..., 0]

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        tokens = self._uniform(rng, len(labels))
        others = self._others(rng, tokens[:, :1])
        tokens[:, 1] = np.where(labels, tokens[:, 0], others[:, 1])
        tokens[:, 2:] = np.where(labels[:, None], others[:, 2:], tokens[:, 2:])
        return tokens


class FirstTokenRepeatedLast(Task):
    """The task to tell whether the last token is the first; those between are uniform.

    Example:
        >>> from semijax import zoo
        >>> task = zoo.FirstTokenRepeatedLast(length=3, vocabulary=9)
        >>> print(task.label([[4, 4, 2], [4, 5, 4]]))
        [0 1]
    """

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        return tokens[..., -1] == tokens[..., 0]

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        tokens = self._uniform(rng, len(labels))
        others = self._others(rng, tokens[:, :1])
        tokens[:, -1] = np.where(labels, tokens[:, 0], others[:, -1])
        return tokens


class AdjacentDuplicate(Task):
    """The task to tell whether two neighbours are the same token.

    A True example has a uniform token twice at a uniform position, and is uniform elsewhere; a
    False one is uniform over all sequences without equal neighbours.

    Example:
        >>> from semijax import zoo
        >>> task = zoo.AdjacentDuplicate(length=6, vocabulary=9)
        >>> print(task.label([[1, 2, 2, 3, 4, 5], [1, 2, 3, 2, 4, 5]]))
        [1 0]
    """

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        return (tokens[..., 1:] == tokens[..., :-1]).any(axis=-1)

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        n = len(labels)
        duplicate = self._uniform(rng, n)
        position = rng.integers(1, self.length, n)
        duplicate[np.arange(n), position] = duplicate[np.arange(n), position - 1]
        # Steps around the circle of tokens that never end where they start.
        steps = rng.integers(1, self.vocabulary - 1, (n, self.length))
        steps[:, 0] = rng.integers(0, self.vocabulary - 1, n)
        distinct = 1 + np.cumsum(steps, axis=1) % (self.vocabulary - 1)
        return np.where(labels[:, None], duplicate, distinct)


@dataclasses.dataclass(frozen=True)
class ContainsTokenSet(Task):
    """The task to tell whether all tokens of a set are there.

    A True example holds each once, and is uniform elsewhere, in random order; a False one is
    uniform over all sequences that lack one or more of them.

    Args:
        tokens: the set, kept in ascending order.

    Example:
        >>> from semijax import zoo
        >>> task = zoo.ContainsTokenSet(length=3, vocabulary=9, tokens=[1, 2])
        >>> print(task.label([[4, 1, 2], [4, 1, 3]]))
        [1 0]
    """

    tokens: Iterable[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        tokens = tuple(sorted(map(operator.index, self.tokens)))
        object.__setattr__(self, "tokens", tokens)
        if not set(tokens) <= set(range(1, self.vocabulary)) or len(set(tokens)) < len(tokens):
            raise ValueError(
                f"Expected distinct tokens of 1 .. {self.vocabulary - 1}. Got {tokens}."
            )
        if not 1 <= len(tokens) <= self.length:
            raise ValueError(
                f"A sequence of length {self.length} holds 1 to {self.length} tokens. "
                f"Got {len(tokens)}."
            )

    @property
    def name(self) -> str:
        """The name, such as ``"ContainsTokenSet(1..5)"``."""
        tokens = list(self.tokens)
        run = len(tokens) > 1 and tokens == list(range(tokens[0], tokens[-1] + 1))
        shown = f"{tokens[0]}..{tokens[-1]}" if run else ", ".join(map(str, tokens))
        return f"ContainsTokenSet({shown})"

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        return self._absent(tokens) == 0

    def _absent(self, tokens: np.ndarray) -> np.ndarray:
        """Count the set's tokens that each sequence lacks."""
        return np.sum([(tokens != token).all(axis=-1) for token in self.tokens], axis=0)

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        members = np.array(self.tokens)
        tokens = self._uniform(rng, len(labels))
        tokens[:, : len(members)] = members
        tokens = rng.permuted(tokens, axis=1)
        # The False sequences are a union: of those without the first of the set's tokens, those
        # without the second, …. To be uniform over it, draw from one of these sets, and keep what
        # is in m of them with probability 1/m (Karp and Luby 1983).
        rows = np.flatnonzero(labels == 0)
        while rows.size:
            tokens[rows] = self._others(rng, rng.choice(members, (rows.size, 1)))
            rows = rows[rng.random(rows.size) * self._absent(tokens[rows]) >= 1]
        return tokens


@dataclasses.dataclass(frozen=True)
class Contains1(ContainsTokenSet):
    """The task to tell whether the token 1 is there: ``ContainsTokenSet([1])`` by its own name.

    Example:
        >>> from semijax import zoo
        >>> task = zoo.Contains1(length=3, vocabulary=9)
        >>> print(task.label([[4, 1, 2], [4, 5, 2]]))
        [1 0]
    """

    tokens: Iterable[int] = dataclasses.field(default=(1,), init=False, repr=False)

    @property
    def name(self) -> str:
        """The name ``"Contains1"``."""
        return "Contains1"


@dataclasses.dataclass(frozen=True)
class BinCountOnes(Task):
    """The task to count the token 1, in bins of equal width.

    Class c has from ``c * length / bins + 1`` to ``(c + 1) * length / bins`` ones: every sequence
    has at least one. The bins are those that the released code lists and samples from. (With
    ``floor(bins * count / length)``, a count of ``length / bins`` would be in bin 1, and one of
    ``length`` in a bin that isn't there.) The count is uniform in its bin, and the other tokens are
    uniform over those that differ from 1, in random order.

    Args:
        bins: the number of classes, which divides ``length``.

    Example:
        >>> task = BinCountOnes(4, length=12)  # counts of 1-3, 4-6, 7-9, 10-12
        >>> int(task.label([0, 9, 8, 7, 6, 5, 4, 3, 1, 2, 1, 2]))
        0
    """

    bins: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length % checks.check_positive("bins", self.bins):
            raise ValueError(
                f"The number of bins must divide the length. Got bins={self.bins}, "
                f"length={self.length}."
            )

    @property
    def name(self) -> str:
        """The name, such as ``"BinCountOnes(4)"``."""
        return f"BinCountOnes({self.bins})"

    @property
    def classes(self) -> int:
        """The number of bins."""
        return self.bins

    def _label(self, tokens: np.ndarray) -> np.ndarray:
        count = (tokens == 1).sum(axis=-1)
        if (count == 0).any():
            raise ValueError(f"{self.name} has no class for a sequence without the token 1.")
        return (count - 1) // (self.length // self.bins)

    def _examples(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        width = self.length // self.bins
        count = labels * width + rng.integers(1, width + 1, len(labels))
        others = rng.integers(2, self.vocabulary, (len(labels), self.length))
        tokens = np.where(np.arange(self.length) < count[:, None], 1, others)
        return rng.permuted(tokens, axis=1)


def figure_5_tasks() -> tuple[Task, ...]:
    """Return the 20 tasks of Du et al. (2023), Figure 5: of length 36 and a vocabulary of 60.

    Example:
        >>> from semijax import zoo
        >>> tasks = zoo.figure_5_tasks()
        >>> len(tasks), tasks[0]
        (20, BinCountOnes(length=36, vocabulary=60, bins=2))
    """
    sizes = {"length": 36, "vocabulary": 60}
    binary = (Contains1, FirstTokenRepeatedImmediately, FirstTokenRepeatedLast, AdjacentDuplicate)
    return (
        *(BinCountOnes(bins, **sizes) for bins in (2, 3, 4, 6, 9, 12, 18, 36)),
        *(ContainsTokenSet(range(1, k + 1), **sizes) for k in (1, 5, 10, 15, 20, 25, 30, 35)),
        *(task(**sizes) for task in binary),
    )


def split(data: Dataset, *, train: float = 0.7, validation: float = 0.1) -> Splits:
    """Cut a dataset, in the order it has, into training, validation and test data.

    Args:
        data: tokens ``[n, length]`` and labels ``[n]``, already in random order.
        train: the fraction to train on.
        validation: the fraction to validate on; what is left over is the test data.

    Raises:
        ValueError: if a fraction is negative or the two sum to more than 1.

    Example:
        >>> from semijax import zoo
        >>> data = zoo.Contains1(length=3, vocabulary=9).sample(10, seed=0)
        >>> train, validation, test = zoo.split(data, train=0.7, validation=0.1)
        >>> test.tokens.shape
        (2, 3)
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
