"""The online code: of a model whose code has a closed form, and of one that knows nothing."""

import math

import numpy as np
import pytest

from semijax.zoo import code_length
from semijax.zoo.tasks import Dataset

CLASSES = 3


def dataset(n, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 7, (n, 2)).astype(np.int32)
    return Dataset(tokens, rng.choice(CLASSES, n, p=[0.7, 0.2, 0.1]).astype(np.int32))


def laplace(training):
    """Predicts a label as often as it was seen, and once more (Laplace's rule of succession)."""
    counts = np.bincount(training.labels, minlength=CLASSES) + 1
    return lambda tokens: np.tile(np.log(counts / counts.sum()), (len(tokens), 1))


def test_blocks_of_one_give_the_closed_form():
    data = dataset(29)
    found = code_length.online_code_length(laplace, data, classes=CLASSES, blocks=[1] * 29)
    # Π p = (K - 1)! Π_c n_c! / (n + K - 1)!
    counts = np.bincount(data.labels, minlength=CLASSES)
    log_p = math.lgamma(CLASSES) + sum(math.lgamma(n + 1) for n in counts)
    log_p -= math.lgamma(29 + CLASSES)
    assert found.bits == pytest.approx(-log_p / math.log(2), rel=1e-12)
    assert found.uniform_bits == pytest.approx(29 * math.log2(3), rel=1e-12)
    assert found.compression == pytest.approx(found.uniform_bits / found.bits)


def test_larger_blocks_label_by_label():
    data = dataset(11)
    found = code_length.online_code_length(laplace, data, classes=CLASSES, blocks=(2, 3, 1, 5))
    bits, means = 2 * math.log2(CLASSES), []
    for start, end in [(2, 5), (5, 6), (6, 11)]:
        seen = data.labels[:start].tolist()
        probabilities = [(seen.count(y) + 1) / (start + CLASSES) for y in data.labels[start:end]]
        bits -= sum(map(math.log2, probabilities))
        means.append(-sum(map(math.log, probabilities)) / (end - start))
    assert found.sizes == (2, 3, 1, 5)
    assert found.bits == pytest.approx(bits, rel=1e-12)
    assert found.losses == pytest.approx([math.log(CLASSES), *means], rel=1e-12)
    assert found.published == pytest.approx(2 * math.log(CLASSES) + sum(means), rel=1e-12)


def test_each_model_sees_the_blocks_before_it_and_predicts_the_next():
    data, seen, asked = dataset(10), [], []

    def fit(training):
        seen.append(training)

        def predict(tokens):
            asked.append(tokens)
            return np.zeros((len(tokens), CLASSES))

        return predict

    code_length.online_code_length(fit, data, classes=CLASSES, blocks=[1, 2, 4, 3])
    for training, tokens, end, next_end in zip(seen, asked, [1, 3, 7], [3, 7, 10], strict=True):
        np.testing.assert_array_equal(training.tokens, data.tokens[:end])
        np.testing.assert_array_equal(training.labels, data.labels[:end])
        np.testing.assert_array_equal(tokens, data.tokens[end:next_end])


def test_a_model_that_knows_nothing_does_not_compress():
    found = code_length.online_code_length(
        lambda training: lambda tokens: np.full((len(tokens), 5), -3.0, np.float32),
        dataset(100),
        classes=5,
    )
    assert found.bits == pytest.approx(100 * math.log2(5), rel=1e-12)
    assert found.compression == pytest.approx(1, rel=1e-12)
    first = found.sizes[0]
    assert found.published == pytest.approx((first + 13) * math.log(5), rel=1e-12)


def test_logits_of_any_offset_are_the_same():
    def shifted(training):
        return lambda tokens: laplace(training)(tokens) + 1000 * np.arange(len(tokens))[:, None]

    data = dataset(50)
    expected = code_length.online_code_length(laplace, data, classes=CLASSES)
    found = code_length.online_code_length(shifted, data, classes=CLASSES)
    assert found.losses == pytest.approx(expected.losses, rel=1e-9)


def test_what_was_held_for_impossible_costs_infinitely_much():
    def fit(training):
        return lambda tokens: np.tile([0.0, -np.inf, -np.inf], (len(tokens), 1))

    data = Dataset(np.ones((4, 2), np.int32), np.array([2, 0, 0, 1], np.int32))
    found = code_length.online_code_length(fit, data, classes=3, blocks=[1, 2, 1])
    assert found.losses == (math.log(3), 0.0, math.inf)
    assert found.bits == math.inf and found.compression == 0


def test_one_block_is_sent_in_the_uniform_code():
    found = code_length.online_code_length(laplace, dataset(7), classes=CLASSES, blocks=[7])
    assert found.bits == pytest.approx(7 * math.log2(3), rel=1e-12)
    assert found.uniform_bits == pytest.approx(7 * math.log2(3), rel=1e-12)


def test_blocks_of_the_paper():
    found = code_length.paper_blocks(3600)
    assert found == (2, 2, 4, 4, 8, 16, 36, 72, 72, 144, 288, 576, 576, 1800)
    percent = [1 / 18, 1 / 18, 1 / 9, 1 / 9, 2 / 9, 4 / 9, 1, 2, 2, 4, 8, 16, 16, 50]
    for n in [21, 100, 997, 10_007]:
        *first, rest = code_length.paper_blocks(n)
        assert first == [math.ceil(n * share / 100) for share in percent[:-1]]
        assert rest == n - sum(first) >= 1


@pytest.mark.parametrize("n", [0, 1, 20])
def test_too_few_examples_for_the_blocks_of_the_paper(n):
    with pytest.raises(ValueError, match=f"{n} examples are too few for the 14 blocks"):
        code_length.paper_blocks(n)


def test_interleave_is_a_permutation_by_turns():
    labels = np.array([2, 2, 0, 2, 0, 4, 2])
    found = code_length.interleave(Dataset(np.arange(7)[:, None], labels))
    assert found.labels.tolist() == [0, 2, 4, 0, 2, 2, 2]
    assert found.tokens[:, 0].tolist() == [2, 0, 5, 4, 1, 3, 6]


@pytest.mark.parametrize("n", [0, 1, 47])
def test_interleave_keeps_the_examples(n):
    data = dataset(n)
    found = code_length.interleave(data)
    assert found.tokens.shape == data.tokens.shape and found.labels.dtype == np.int32

    def rows(data):
        return sorted(map(tuple, np.column_stack([data.tokens, data.labels]).tolist()))

    assert rows(found) == rows(data)


@pytest.mark.parametrize("blocks", [[], [5, 4], [5, 6], [0, 10], [11, -1]])
def test_blocks_that_are_not_the_data_are_refused(blocks):
    with pytest.raises(ValueError, match="at least 1 that sum to 10 examples"):
        code_length.online_code_length(laplace, dataset(10), classes=CLASSES, blocks=blocks)


@pytest.mark.parametrize(("labels", "classes"), [([0, 1, 2], 2), ([0, -1, 1], 2), ([0, 0, 0], 1)])
def test_labels_that_are_no_classes_are_refused(labels, classes):
    data = Dataset(np.ones((3, 2), np.int32), np.array(labels))
    with pytest.raises(ValueError, match="at least 2 classes, and labels of 0"):
        code_length.online_code_length(laplace, data, classes=classes, blocks=[1, 2])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_probabilities_are_refused(value):
    def fit(training):
        return lambda tokens: np.full((len(tokens), CLASSES), value)

    with pytest.raises(ValueError, match="leaves no probabilities"):
        code_length.online_code_length(fit, dataset(5), classes=CLASSES, blocks=[2, 3])


def test_predictions_of_another_shape_are_refused():
    def fit(training):
        return lambda tokens: np.zeros((len(tokens), 2))

    with pytest.raises(ValueError, match=r"Expected logits of shape \(3, 3\). Got shape \(3, 2\)"):
        code_length.online_code_length(fit, dataset(5), classes=CLASSES, blocks=[2, 3])
