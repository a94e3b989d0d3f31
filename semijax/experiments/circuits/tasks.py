"""Tasks for small transformers, and pairs of prompts that differ in all that can differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from semijax.experiments.circuits.model import Prompt

TOKENS = 12
"""The number of ordinary tokens; ``START``, ``NO`` and ``YES`` follow."""

START, NO, YES = range(TOKENS, TOKENS + 3)
VOCABULARY = TOKENS + 3

LENGTH = 10
"""The number of tokens in a prompt. The first in order is always ``START``."""


class Examples(NamedTuple):
    """Prompts in the order of their positions, and what follows.

    Attributes:
        tokens: integers ``[n, LENGTH]``.
        answers: tokens, integers ``[n]``.
        told_at: the places that the answer can be seen at, bool ``[n, LENGTH]``.
    """

    tokens: np.ndarray
    answers: np.ndarray
    told_at: np.ndarray


class Pair(NamedTuple):
    """A prompt and another, whose positions, tokens and answers differ; or n with an axis in front.

    Attributes:
        clean, corrupted: the prompts, integers ``[LENGTH]``.
        right, wrong: the answers to these.
        told_at: the places in the clean prompt that the answer can be seen at, bool ``[LENGTH]``.
    """

    clean: Prompt
    corrupted: Prompt
    right: jax.Array
    wrong: jax.Array
    told_at: jax.Array


@dataclasses.dataclass(frozen=True)
class Task:
    """A task.

    Attributes:
        name: the task's.
        draw: of a random generator, the ``LENGTH`` tokens of one prompt, its answer, and the
            positions at which it can be seen.
    """

    name: str
    draw: Callable[[np.random.Generator], tuple[list[int], int, list[int]]]

    def sample(self, rng: np.random.Generator, count: int) -> Examples:
        """Draw prompts."""
        tokens, answers, places = zip(*(self.draw(rng) for _ in range(count)), strict=True)
        told_at = np.zeros((count, LENGTH), bool)
        for row, own in zip(told_at, places, strict=True):
            row[own] = True
        return Examples(np.array(tokens), np.array(answers), told_at)

    def pairs(self, rng: np.random.Generator, count: int) -> Pair:
        """Draw pairs of prompts.

        Both are stored in random order, but that the last token is at the last place. At every
        other place, tokens and positions differ; at the last one tokens do, unless it is the
        same in all prompts. So does the answer.
        """
        found: list[tuple[np.ndarray, ...]] = []
        while len(found) < count:
            examples = self.sample(rng, 2)
            order = np.stack([rng.permutation(LENGTH - 1) for _ in range(2)])
            order = np.concatenate([order, np.full((2, 1), LENGTH - 1)], 1)
            tokens = np.take_along_axis(examples.tokens, order, 1)
            same = (tokens[0] == tokens[1]) | (order[0] == order[1])
            same_end = tokens[0, -1] == tokens[1, -1] < TOKENS
            if same[:-1].any() or same_end or examples.answers[0] == examples.answers[1]:
                continue
            told_at = examples.told_at[0][order[0]]
            found.append((*tokens, *order, *examples.answers, told_at))
        columns = zip(*found, strict=True)
        first, second, here, there, *rest = (jnp.asarray(np.stack(rows)) for rows in columns)
        return Pair(Prompt(first, here), Prompt(second, there), *rest)


def _induction(rng: np.random.Generator) -> tuple[list[int], int, list[int]]:
    words = rng.permutation(TOKENS)[: LENGTH - 2].tolist()
    at = int(rng.integers(LENGTH - 3))
    return [START, *words, words[at]], words[at + 1], [at + 2]


def _copy_first(rng: np.random.Generator) -> tuple[list[int], int, list[int]]:
    words = rng.permutation(TOKENS)[: LENGTH - 1].tolist()
    return [START, *words], words[0], [1]


def _two_hops(rng: np.random.Generator) -> tuple[list[int], int, list[int]]:
    a, b, c, *others = rng.permutation(TOKENS).tolist()
    pairs = [(a, b), (b, c), (others[0], others[1]), (others[2], others[3])]
    order = rng.permutation(4).tolist()
    tokens = [START, *(token for n in order for token in pairs[n]), a]
    return tokens, c, [2 * order.index(1) + 2]


def _first_again(rng: np.random.Generator) -> tuple[list[int], int, list[int]]:
    words = rng.permutation(TOKENS)[: LENGTH - 2].tolist()
    again = int(rng.integers(2))
    places = [1]
    if again:
        at = int(rng.integers(1, LENGTH - 2))
        words[at] = words[0]
        places.append(at + 1)
    return [START, *words, START], (NO, YES)[again], places


INDUCTION = Task("induction", _induction)
"""What follows the earlier occurrence of the last token?"""

COPY_FIRST = Task("copy first", _copy_first)
"""What is the first token?"""

TWO_HOPS = Task("two hops", _two_hops)
"""Of pairs a b, b c and others, and a again: what is c?"""

FIRST_AGAIN = Task("first again", _first_again)
"""Does the first token occur again? The answers are ``NO`` and ``YES``."""
