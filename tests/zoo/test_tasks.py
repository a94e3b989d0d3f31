"""The synthetic tasks: at a small size, every sequence is drawn as often as it should be."""

import itertools

import numpy as np
import pytest

from semijax.zoo import tasks

SIZES = {"length": 4, "vocabulary": 4}
TOKENS, LENGTH = (1, 2, 3), 4


def but(token):
    return [other for other in TOKENS if other != token]


def sequences(length, alphabet=TOKENS):
    return itertools.product(alphabet, repeat=length)


# For each task: its label of one sequence, and how its examples come about. The latter are lists of
# equally likely lists of equally likely sequences.


def once(x):
    return x[1:].count(x[0]) == 1


def draw_once(label):
    draws = []
    for first in TOKENS:
        for rest in sequences(LENGTH - 1, but(first)):
            if label:
                draws += [(first, *rest[:i], first, *rest[i + 1 :]) for i in range(LENGTH - 1)]
            else:
                draws.append((first, *rest))
    return [draws]


def immediately(x):
    return x[0] == x[1]


def draw_immediately(label):
    draws = []
    for first in TOKENS:
        if label:
            draws += [(first, first, *rest) for rest in sequences(LENGTH - 2, but(first))]
        else:
            rests = list(sequences(LENGTH - 2))
            draws += [(first, second, *rest) for second in but(first) for rest in rests]
    return [draws]


def last(x):
    return x[0] == x[-1]


def draw_last(label):
    middles = list(sequences(LENGTH - 2))
    return [
        [
            (first, *middle, end)
            for first in TOKENS
            for middle in middles
            for end in ([first] if label else but(first))
        ]
    ]


def adjacent(x):
    return any(a == b for a, b in itertools.pairwise(x))


def draw_adjacent(label):
    if not label:
        return [[x for x in sequences(LENGTH) if not adjacent(x)]]
    return [
        [
            (*rest[:i], token, token, *rest[i:])
            for i in range(LENGTH - 1)
            for token in TOKENS
            for rest in sequences(LENGTH - 2)
        ]
    ]


def contains(*members):
    return lambda x: set(members) <= set(x)


def draw_contains(*members):
    def draw(label):
        if not label:
            return [[x for x in sequences(LENGTH) if not contains(*members)(x)]]
        rests = sequences(LENGTH - len(members))
        return [[x for rest in rests for x in itertools.permutations((*members, *rest))]]

    return draw


def bin_of_ones(bins):
    starts = range(1, LENGTH + 1, LENGTH // bins)
    return lambda x: sum(x.count(1) >= start for start in starts) - 1


def draw_bin_of_ones(bins):
    def draw(label):
        return [
            [
                x
                for others in sequences(LENGTH - count, but(1))
                for x in itertools.permutations((1,) * count + others)
            ]
            for count in range(1, LENGTH + 1)
            if bin_of_ones(bins)([1] * count) == label
        ]

    return draw


CASES = [
    (tasks.FirstTokenRepeatedOnce(**SIZES), once, draw_once),
    (tasks.FirstTokenRepeatedImmediately(**SIZES), immediately, draw_immediately),
    (tasks.FirstTokenRepeatedLast(**SIZES), last, draw_last),
    (tasks.AdjacentDuplicate(**SIZES), adjacent, draw_adjacent),
    (tasks.Contains1(**SIZES), contains(1), draw_contains(1)),
    (tasks.ContainsTokenSet([3], **SIZES), contains(3), draw_contains(3)),
    (tasks.ContainsTokenSet([3, 1], **SIZES), contains(1, 3), draw_contains(1, 3)),
    (tasks.ContainsTokenSet([1, 2, 3], **SIZES), contains(1, 2, 3), draw_contains(1, 2, 3)),
    (tasks.BinCountOnes(1, **SIZES), bin_of_ones(1), draw_bin_of_ones(1)),
    (tasks.BinCountOnes(2, **SIZES), bin_of_ones(2), draw_bin_of_ones(2)),
    (tasks.BinCountOnes(4, **SIZES), bin_of_ones(4), draw_bin_of_ones(4)),
]
LABELS = [(task, label) for task, label, _ in CASES]
ALL = [task for task, _ in LABELS]


def by_name(values):
    return [value.name if isinstance(value, tasks.Task) else value for value in values]


@pytest.mark.parametrize(("task", "label"), LABELS, ids=by_name(ALL))
def test_labels_of_all_sequences(task, label):
    every = list(sequences(LENGTH, (0, *TOKENS)))
    if isinstance(task, tasks.BinCountOnes):
        every = [x for x in every if 1 in x]
    found = task.label(every)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, [label(x) for x in every])
    np.testing.assert_array_equal(task.label(np.array([every, every])), [found, found])
    assert task.label(every[-1]) == found[-1]


@pytest.mark.parametrize(("task", "label", "draw"), CASES, ids=by_name(ALL))
def test_every_sequence_is_drawn_as_often_as_it_should_be(task, label, draw):
    n = 30_000 * task.classes
    tokens, labels = task.sample(n, seed=1)
    for value in range(task.classes):
        expected = dict.fromkeys(sequences(LENGTH), 0.0)
        draws = draw(value)
        for equally_likely in draws:
            for x in equally_likely:
                assert label(x) == value
                expected[x] += 1 / (len(draws) * len(equally_likely))
        found = dict.fromkeys(expected, 0)
        for x in tokens[labels == value].tolist():
            found[tuple(x)] += 1
        probability = np.array(list(expected.values()))
        error = np.array(list(found.values())) - 30_000 * probability
        # Five standard deviations of a binomial count.
        assert np.all(abs(error) <= 5 * np.sqrt(30_000 * probability * (1 - probability)))


@pytest.mark.parametrize("task", tasks.figure_5_tasks(), ids=by_name(tasks.figure_5_tasks()))
def test_the_tasks_of_figure_5(task):
    tokens, labels = task.sample(720)
    assert tokens.shape == (720, 36) and tokens.dtype == np.int32
    assert labels.shape == (720,) and labels.dtype == np.int32
    assert tokens.min() >= 1 and tokens.max() <= 59
    np.testing.assert_array_equal(np.bincount(labels), [720 // task.classes] * task.classes)
    np.testing.assert_array_equal(task.label(tokens), labels)


def test_figure_5_has_twenty_tasks():
    names = [task.name for task in tasks.figure_5_tasks()]
    assert len(set(names)) == len(names) == 20
    assert {"BinCountOnes(36)", "ContainsTokenSet(1)", "ContainsTokenSet(1..35)"} < set(names)
    assert {"Contains1", "AdjacentDuplicate"} < set(names)


def test_a_set_is_named_by_its_tokens():
    assert tasks.ContainsTokenSet([7, 2]).name == "ContainsTokenSet(2, 7)"
    assert tasks.ContainsTokenSet(range(2, 4)).name == "ContainsTokenSet(2..3)"
    assert tasks.ContainsTokenSet({3, 2}) == tasks.ContainsTokenSet((2, 3))


def test_the_bins_of_the_released_example():
    task = tasks.BinCountOnes(4, length=12)
    assert task.label([0, 9, 8, 7, 6, 5, 4, 3, 1, 2, 1, 2]) == 0
    counts = np.arange(1, 13)
    assert task.label(np.where(np.arange(12) < counts[:, None], 1, 2)).tolist() == [
        *(0, 0, 0),
        *(1, 1, 1),
        *(2, 2, 2),
        *(3, 3, 3),
    ]


def test_labels_come_in_random_order():
    labels = tasks.FirstTokenRepeatedOnce().sample(10_000).labels
    assert abs(labels[:5_000].sum() - 2_500) < 5 * np.sqrt(5_000) / 2


@pytest.mark.parametrize("task", ALL, ids=by_name(ALL))
def test_the_seed_decides(task):
    first, again, other = (task.sample(50, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.tokens != other.tokens).any()


@pytest.mark.parametrize("n", [0, 1, 7])
@pytest.mark.parametrize("sizes", [(2, 3), (6, 3), (2, 7)])
@pytest.mark.parametrize(
    "task",
    [
        tasks.FirstTokenRepeatedOnce,
        tasks.FirstTokenRepeatedImmediately,
        tasks.FirstTokenRepeatedLast,
        tasks.AdjacentDuplicate,
        tasks.Contains1,
        lambda **sizes: tasks.ContainsTokenSet([1, 2], **sizes),
        lambda **sizes: tasks.BinCountOnes(2, **sizes),
    ],
)
def test_smallest_sizes(task, sizes, n):
    length, vocabulary = sizes
    task = task(length=length, vocabulary=vocabulary)
    tokens, labels = task.sample(n)
    assert tokens.shape == (n, length)
    assert labels.sum() == n // 2
    np.testing.assert_array_equal(task.label(tokens), labels)


def test_lower_classes_have_one_more():
    labels = tasks.BinCountOnes(5).sample(17).labels
    assert np.bincount(labels).tolist() == [4, 4, 3, 3, 3]


def test_what_nearly_never_happens_is_drawn_at_once():
    # One in 2⁹⁹ sequences lacks one of the two tokens.
    tokens, labels = tasks.ContainsTokenSet([1, 2], length=100, vocabulary=3).sample(20)
    assert all((row == row[0]).all() for row in tokens[labels == 0])


@pytest.mark.parametrize("sizes", [{"length": 1}, {"vocabulary": 2}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="Contains1 needs length >= 2 and vocabulary >= 3"):
        tasks.Contains1(**sizes)
    with pytest.raises(ValueError, match="needs length >= 2 and vocabulary >= 3"):
        tasks.BinCountOnes(1, **sizes)


@pytest.mark.parametrize("tokens", [[0, 1], [20], [2, 2]])
def test_what_is_no_set_of_tokens_is_refused(tokens):
    with pytest.raises(ValueError, match=r"distinct tokens of 1 \.\. 19"):
        tasks.ContainsTokenSet(tokens)


@pytest.mark.parametrize("tokens", [[], range(1, 5)])
def test_a_set_that_does_not_fit_is_refused(tokens):
    with pytest.raises(ValueError, match="length 3 holds 1 to 3 tokens"):
        tasks.ContainsTokenSet(tokens, length=3)


def test_impossible_bins_are_refused():
    with pytest.raises(ValueError, match=r"must divide the length\. Got bins=4, length=10"):
        tasks.BinCountOnes(4)
    with pytest.raises(ValueError, match="bins must be an integer of at least 1"):
        tasks.BinCountOnes(0)


def test_a_negative_number_of_examples_is_refused():
    with pytest.raises(ValueError, match=r"at least 0\. Got -1"):
        tasks.AdjacentDuplicate().sample(-1)


def test_sequences_without_a_label_are_refused():
    with pytest.raises(ValueError, match=r"Expected tokens \[..., 10\]. Got shape \(3, 9\)"):
        tasks.AdjacentDuplicate().label(np.ones((3, 9), int))
    with pytest.raises(ValueError, match="no class for a sequence without the token 1"):
        tasks.BinCountOnes(2).label([[1] * 10, [2] * 10])


def test_split_is_a_partition_in_order():
    data = tasks.FirstTokenRepeatedOnce().sample(1_000)
    splits = tasks.split(data)
    assert [len(part.labels) for part in splits] == [700, 100, 200]
    np.testing.assert_array_equal(np.concatenate([part.tokens for part in splits]), data.tokens)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in splits]), data.labels)


@pytest.mark.parametrize("fractions", [(0.7, 0.4), (-0.1, 0.1)])
def test_impossible_fractions_are_refused(fractions):
    train, validation = fractions
    data = tasks.FirstTokenRepeatedOnce().sample(10)
    with pytest.raises(ValueError, match="at least 0 and sum to at most 1"):
        tasks.split(data, train=train, validation=validation)
