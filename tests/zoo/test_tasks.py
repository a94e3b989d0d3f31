"""The synthetic task: its sequences are what they claim to be."""

import numpy as np
import pytest

from semijax import zoo


def repetitions(tokens):
    return (tokens[:, 1:] == tokens[:, :1]).sum(axis=1)


def test_labels_say_whether_the_first_token_comes_back():
    tokens, labels = zoo.first_token_repeated_once(10_000)
    assert tokens.shape == (10_000, 10) and tokens.dtype == np.int32
    assert labels.shape == (10_000,) and labels.dtype == np.int32
    assert labels.sum() == 5_000
    np.testing.assert_array_equal(repetitions(tokens), labels)


def test_tokens_and_positions_are_uniform():
    tokens, labels = zoo.first_token_repeated_once(20_000, seed=1)
    assert tokens.min() == 1 and tokens.max() == 19
    for column in tokens.T:
        counts = np.bincount(column, minlength=20)[1:]
        # Five standard deviations of a binomial count.
        assert np.all(np.abs(counts - 20_000 / 19) < 5 * np.sqrt(20_000 / 19))
    repeated = tokens[labels == 1]
    positions = np.argmax(repeated[:, 1:] == repeated[:, :1], axis=1)
    counts = np.bincount(positions, minlength=9)
    assert np.all(np.abs(counts - 10_000 / 9) < 5 * np.sqrt(10_000 / 9))


def test_labels_come_in_random_order():
    labels = zoo.first_token_repeated_once(10_000).labels
    assert abs(labels[:5_000].sum() - 2_500) < 5 * np.sqrt(5_000) / 2


def test_the_seed_decides():
    first, again, other = (zoo.first_token_repeated_once(50, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.tokens != other.tokens).any()


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize(("length", "vocabulary"), [(2, 3), (5, 3), (2, 7)])
def test_smallest_sizes(n, length, vocabulary):
    tokens, labels = zoo.first_token_repeated_once(n, length=length, vocabulary=vocabulary)
    assert tokens.shape == (n, length)
    assert labels.sum() == n // 2
    np.testing.assert_array_equal(repetitions(tokens), labels)


@pytest.mark.parametrize("sizes", [{"n": -1}, {"length": 1}, {"vocabulary": 2}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="needs n >= 0, length >= 2 and vocabulary >= 3"):
        zoo.first_token_repeated_once(**sizes)


def test_split_is_a_partition_in_order():
    data = zoo.first_token_repeated_once(1_000)
    splits = zoo.split(data)
    assert [len(part.labels) for part in splits] == [700, 100, 200]
    np.testing.assert_array_equal(np.concatenate([part.tokens for part in splits]), data.tokens)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in splits]), data.labels)


@pytest.mark.parametrize("fractions", [(0.7, 0.4), (-0.1, 0.1)])
def test_impossible_fractions_are_refused(fractions):
    train, validation = fractions
    with pytest.raises(ValueError, match="at least 0 and sum to at most 1"):
        zoo.split(zoo.first_token_repeated_once(10), train=train, validation=validation)
