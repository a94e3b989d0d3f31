"""Studies: their numbers are NumPy's on all observations, however they were padded and killed."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semijax.study import Moments, Study, run_study

run_quietly = functools.partial(run_study, progress=False)

X = {"x": lambda _, x: x}
"""Reducers that make an observation of each number of a batch."""


def sentences(n: int, seed: int = 0, longest: int = 90) -> list[dict]:
    """Batches of mixed lengths: ids from 1, whether each is odd, and a label not to be padded."""
    random = np.random.default_rng(seed)
    batches = []
    for number, length in enumerate(random.integers(1, longest, n)):
        ids = random.integers(1, 50, length).astype(np.int32)
        batches.append({"ids": ids, "odd": ids % 2 == 1, "label": np.array([number % 3])})
    return batches


PAD = {"ids": 0, "odd": 0, "label": None}


def root_share(batch, mask=True):
    """Of each token the root over the masked sum: wrong if what is padded counts."""
    roots = jnp.sqrt(batch["ids"].astype(jnp.float32)) + 1
    return {"share": roots / jnp.sum(roots, where=mask), "label": batch["label"]}


def tokens(output, batch):
    return output["share"]


def expected_shares(batch) -> np.ndarray:
    roots = np.sqrt(batch["ids"].astype(np.float32)) + 1
    return roots / roots.sum()


def clustered_stderr(examples) -> float:
    """The formula written out, from each example's numbers."""
    examples = [np.asarray(x, np.float64) for x in examples if np.size(x)]
    mean = np.concatenate(examples).mean()
    squares = sum(float(np.sum(x - mean)) ** 2 for x in examples)
    n, total = len(examples), sum(map(len, examples))
    return math.sqrt(n / (n - 1) * squares) / total if n > 1 else math.nan


def assert_moments(moments: Moments, examples, rtol: float = 1e-12) -> None:
    """As NumPy says of the numbers of each example, of which NaN is none."""
    given = [np.atleast_1d(np.asarray(x, np.float64)) for x in examples]
    kept = [x[~np.isnan(x)] for x in given]
    assert moments.count == sum(map(len, kept))
    assert moments.examples == sum(len(x) > 0 for x in kept)
    assert moments.dropped == sum(map(len, given)) - moments.count
    assert moments.dropped_examples == sum(len(x) > 0 for x in given) - moments.examples
    np.testing.assert_allclose(moments.mean, np.concatenate(kept).mean(), rtol=rtol)
    np.testing.assert_allclose(moments.stderr, clustered_stderr(kept), rtol=max(rtol, 1e-6))


# Padding


def test_by_default_a_function_sees_the_batches_as_they_are():
    batches = sentences(11)
    seen = []

    def fn(batch):
        seen.append(batch["ids"].shape)
        return batch["ids"][-1]

    study = run_quietly(fn, batches, reducers={"last": lambda output, batch: output})
    assert study["last"]["all"].mean == np.mean([batch["ids"][-1] for batch in batches])
    assert seen == list(dict.fromkeys(batch["ids"].shape for batch in batches))
    assert study.provenance["compiled"] == len(seen)


def last(x, mask):
    return x[-1]


def mean_of_all(x, mask):
    return jnp.mean(jnp.where(mask, x, 0))


def softmax_of_all(x, mask):
    return jax.nn.softmax(x)


@pytest.mark.parametrize("fn", [last, mean_of_all, softmax_of_all])
@pytest.mark.parametrize("lengths", [(3, 5), (8, 8, 5), (16, 3)])
def test_a_function_whose_numbers_padding_changes_is_refused(fn, lengths):
    batches = [1 + np.arange(float(n)) for n in lengths]
    message = rf"(?s)Padding changes the observations of 'x' .*In batch {len(lengths) - 1} of"
    if lengths[0] == 3:
        message = r"(?s)Padding changes .*padded from 3 to 8 .*pad=None, the def.*In batch 0 of"
    reducers = {"n": lambda _, x: x.size, "x": lambda output, _: output}
    with pytest.raises(ValueError, match=message):
        run_quietly(fn, batches, reducers=reducers, pad=0)
    study = run_quietly(fn, batches, reducers=reducers, pad=0, pad_tolerance=math.inf)
    exact = run_quietly(lambda x: fn(x, True), batches, reducers=reducers)
    assert study["n"] == exact["n"] and study["x"]["all"].mean != exact["x"]["all"].mean


def test_the_tolerance_is_a_share_of_the_sum():
    def rounded(x, mask):
        return x + jnp.where(mask.all(), 0.0, 0.125)  # as if a padded array were added up otherwise

    reducers = {"x": lambda output, _: output}
    for sign in (-1, 1):
        batch = sign * np.array([1.0, 2.0, -3.0])  # three changes of 1/8, of a sum of 6: 1/16
        run_quietly(rounded, [batch], reducers=reducers, pad=0, pad_tolerance=0.0625)
        with pytest.raises(ValueError, match=r"larger pad_tolerance than 0\.0624 allows it"):
            run_quietly(rounded, [batch], reducers=reducers, pad=0, pad_tolerance=0.0624)


def test_what_is_small_beside_the_others_may_be_rounding():
    def fn(x, mask):
        return x, 1e-6 * jnp.where(mask.all(), 1, -1)

    reducers = {"x": lambda y, _: y[0], "nothing": lambda y, _: y[1]}
    batches = [np.array([1.0, -1, 1])]
    study = run_quietly(fn, batches, reducers=reducers, pad=0)
    assert study["nothing"]["all"].mean == pytest.approx(-1e-6)
    for scale, of in ((6, reducers), (1, {"nothing": reducers["nothing"]})):
        with pytest.raises(ValueError, match="Padding changes the observations of 'nothing'"):
            run_quietly(
                lambda *a, s=scale, **k: (fn(*a, **k)[0], s * fn(*a, **k)[1]),
                batches,
                reducers=of,
                pad=0,
            )


def test_nan_that_padding_brings_or_takes_is_a_change():
    def shaky(x, mask):
        return jnp.where(mask.all(), x, jnp.nan)

    for fn in (shaky, lambda x, mask: jnp.where(mask.all(), jnp.nan, x)):
        with pytest.raises(ValueError, match="Padding changes the observations of 'x'"):
            run_quietly(fn, [np.zeros(3)], reducers={"x": lambda y, _: y}, pad=0)
    nan = np.array([1.0, np.nan, 2.0])
    study = run_quietly(lambda x, mask: x, [nan], reducers={"x": lambda y, _: y}, pad=0)
    assert_moments(study["x"]["all"], [nan])


def no_mask(x):
    return x


def other_argument(x, scale=2.0):
    return scale * x


@pytest.mark.parametrize("fn", [no_mask, other_argument, jnp.square])
def test_a_function_without_a_mask_is_never_padded(fn):
    message = r"called as fn\(batch, mask=mask\).*cannot be: .*'mask'.*pad=None, the default"
    with pytest.raises(TypeError, match=message):
        run_quietly(fn, [np.ones(3)], reducers={"x": lambda y, _: y}, pad=0)


def test_a_function_that_compiles_itself_is_called_as_it_is():
    traced = []

    @jax.jit
    def scaled(scale, batch):
        traced.append(batch.shape)
        return scale * batch

    batches = [np.arange(3.0), np.arange(5.0)]
    for scale in (2.0, 3.0):
        study = run_study(
            lambda batch, mask, scale=scale: scaled(scale, batch),
            batches,
            reducers={"value": lambda output, batch: output},
            pad=0,
            jit=False,
            progress=False,
        )
        assert study["value"]["all"].mean == pytest.approx(scale * 13 / 8)
        assert study.provenance["compiled"] == 1
    assert traced == [(8,), (3,)]  # the latter to be compared


def test_200_sentences_compile_once_per_bucket_and_once_to_compare():
    traced = []

    def fn(batch, mask):
        assert mask.shape == batch["ids"].shape == batch["odd"].shape
        traced.append(batch["ids"].shape)
        return root_share(batch, mask)

    batches = sentences(200)
    lengths = {len(batch["ids"]) for batch in batches}
    assert len(lengths) > 40
    study = run_quietly(fn, iter(batches), reducers={"share": tokens}, pad=PAD)
    first = batches[0]["ids"].shape
    assert first[0] not in (8, 16, 32, 64) and traced[1] == first
    assert sorted({*traced} - {first}) == [(8,), (16,), (32,), (64,), (128,)]
    assert len(traced) == 6
    assert study.provenance["compiled"] == 5 and study.batches == 200

    traced.clear()
    run_quietly(fn, batches, reducers={"share": tokens}, pad=PAD)
    assert not traced  # what has a name compiles once for all studies
    run_quietly(fn, batches, reducers={"share": tokens}, pad=PAD, buckets=[50, 97])
    assert sorted(traced) == [(50,), (97,)]


@pytest.mark.parametrize("buckets", [None, (89,), (3, 5, 89)])
def test_padding_does_not_change_the_numbers(buckets):
    batches = sentences(31)
    study = run_quietly(root_share, batches, reducers={"share": tokens}, pad=PAD, buckets=buckets)
    raw = [expected_shares(batch) for batch in batches]
    assert_moments(study["share"]["all"], raw, rtol=1e-6)
    unpadded = run_quietly(root_share, batches, reducers={"share": tokens})
    assert_moments(unpadded["share"]["all"], raw, rtol=1e-6)
    assert unpadded.provenance["compiled"] == len({len(batch["ids"]) for batch in batches})


def test_only_the_function_sees_the_padding():
    batch = (np.arange(5), jnp.ones((2, 5), bool), np.ones((3, 7)), 1.5)
    called, reduced = [], []

    def fn(batch, mask):
        called.append((batch, mask))
        return *batch, mask

    def reducer(output, given):
        reduced.append((output, given))
        return 0

    run_quietly(fn, [batch], reducers={"x": reducer}, pad=(-1, 0, None, 0), axis=-1, jit=False)
    (ids, mask, other, number), own = called[0]
    np.testing.assert_array_equal(ids, [0, 1, 2, 3, 4, -1, -1, -1])
    np.testing.assert_array_equal(mask, [[True] * 5 + [False] * 3] * 2)
    np.testing.assert_array_equal(own, [True] * 5 + [False] * 3)
    assert other.shape == (3, 7) and number == 1.5
    assert all(isinstance(leaf, np.ndarray) for leaf in (ids, mask, other, own))
    np.testing.assert_array_equal(called[1][1], [True] * 5)
    assert called[1][0] is batch and len(called) == 2

    for output, given in reduced:
        for found in (output, given):
            assert isinstance(found[1], np.ndarray)
            np.testing.assert_array_equal(found[0], np.arange(5))
            np.testing.assert_array_equal(found[1], np.ones((2, 5)))
            assert found[2].shape == (3, 7) and found[3] == 1.5
        np.testing.assert_array_equal(output[4], [True] * 5)


def test_padding_is_taken_off_the_axes_that_grow_with_the_batch():
    """Also of one position more or less, and not off one that is as long by chance."""

    def fn(x, mask):
        first = jnp.zeros((1,))
        return {
            "pairs": x[:, None] * x,
            "more": jnp.concatenate([first, x]),
            "steps": x[1:] - x[:-1],
            "width": jnp.stack([x] * 8, -1),
            "fixed": jnp.arange(16),
            "scalar": jnp.sum(x, where=mask),
        }

    shapes = []
    batches = [np.arange(float(n)) for n in (8, 5, 16, 11, 3)]
    run_quietly(
        fn,
        batches,
        reducers={"x": lambda y, _: shapes.append({k: v.shape for k, v in y.items()}) or 0},
        pad=0,
    )
    found = [*shapes[:2], *shapes[3:]]
    assert shapes[1] == shapes[2]  # compared: once padded and once as it is
    for n, own in zip((8, 5, 16, 11, 3), found, strict=True):
        assert own == {
            "pairs": (n, n),
            "more": (n + 1,),
            "steps": (n - 1,),
            "width": (n, 8),
            "fixed": (16,),
            "scalar": (),
        }


def test_outputs_of_another_shape_are_compared_anew():
    compared = []

    def fn(x, mask):
        if mask.all():
            compared.append(x.size)
        wide = x.size > 8  # other outputs for other lengths
        return {"tens": jnp.ones((10 if wide else 9, x.size)), "x": x}

    def count(output, x):
        assert output["tens"].shape == ((9, 10)[len(x) > 8], len(x))
        return output["x"]

    batches = [np.arange(float(n)) for n in (3, 5, 11, 12, 2)]
    study = run_quietly(fn, batches, reducers={"x": count}, pad=0, jit=False)
    assert_moments(study["x"]["all"], batches)
    assert compared == [3, 11, 2]


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x, mask: {"a": jnp.tile(x, 2)}, r"output\['a'\] has shape \(16,\).* and \(6,\) wh"),
        (lambda x, mask: x[::2], r"output has shape \(4,\) where the batch is padded and \(2,\)"),
        (lambda x, mask: x if x.size < 5 else x[None], r"shape \(1, 8\) where .* and \(3,\)"),
        (
            lambda x, mask: x if x.size < 5 else (x,),
            r"structure of fn's output, from .*\(\*\) to .*\(\(\*,\)\)",
        ),
        (lambda x, mask: x[::-1], "Padding changes the observations of 'x'"),
    ],
)
def test_an_output_where_padding_cannot_be_told_is_refused(fn, message):
    reducers = {"x": lambda y, _: jax.tree.leaves(y)[0]}
    with pytest.raises(ValueError, match=rf"(?s){message}.*padded from 3 to 8"):
        run_quietly(fn, [np.arange(1.0, 4.0)], reducers=reducers, pad=0)


def test_observations_of_another_number_or_name_are_a_change():
    def fn(x, mask):
        return jnp.where(mask, x, 0) + 0 * mask.size, mask.all()

    batches = [np.array([1.0, 2.0, 3.0])]
    with pytest.raises(ValueError, match=r"of 'x' from shape \(3,\) to \(2,\)"):
        run_quietly(fn, batches, reducers={"x": lambda y, _: y[0] if y[1] else y[0][1:]}, pad=0)
    with pytest.raises(ValueError, match=r"statistics from \['x/True'\] to \['x/False'\]"):
        run_quietly(fn, batches, reducers={"x": lambda y, _: {bool(y[1]): 1}}, pad=0)


@pytest.mark.parametrize(
    ("length", "buckets", "padded"),
    [
        *[(0, None, 8), (1, None, 8), (8, None, 8), (9, None, 16), (64, None, 64), (65, None, 128)],
        *[(3, (3, 7), 3), (4, (3, 7), 7), (7, (3, 7), 7)],
    ],
)
def test_the_smallest_bucket_that_holds_it(length, buckets, padded):
    seen = []

    def fn(x, mask):
        seen.append((x.size, mask.size, mask.sum()))
        return x

    reducers = {"n": lambda output, x: output.size}
    study = run_quietly(fn, [np.ones(length)], reducers=reducers, pad=0, buckets=buckets, jit=False)
    assert seen[0] == (padded, padded, length)
    assert seen[1:] == [(length,) * 3] * (padded > length)
    assert study["n"]["all"].mean == length


@pytest.mark.parametrize(("pad", "last"), [(0, False), (1, False), (True, True)])
def test_masks_are_padded_with_false(pad, last):
    seen = []
    run_quietly(
        lambda x, mask: seen.append(x[-1]) or x[0],
        [np.ones(3, bool)],
        reducers={"first": lambda out, x: out},
        pad=pad,
        jit=False,
    )
    assert seen[0] == last


# Numbers


def test_moments_are_numpys_on_the_raw_observations():
    random = np.random.default_rng(1)
    # Far from zero, where a sum of squares would have no digit left.
    arrays = [1e9 + random.normal(size=int(n)) for n in random.integers(1, 12, 53)]
    study = run_quietly(
        lambda x: 0,
        arrays,
        reducers={"x": lambda _, x: x, "max": lambda _, x: x.max(), "big": lambda _, x: x > 1e9},
    )
    assert_moments(study["x"]["all"], arrays)
    assert_moments(study["max"]["all"], [x.max() for x in arrays])
    assert_moments(study["big"]["all"], [x > 1e9 for x in arrays])


def test_groups_by_batch_and_by_observation():
    batches = sentences(23)
    raw = {label: [] for label in range(3)}
    for batch in batches:
        raw[int(batch["label"][0])].append(batch["ids"])
    by_batch = run_quietly(
        root_share,
        batches,
        reducers={"ids": lambda _, batch: batch["ids"]},
        group_by=lambda batch: batch["label"][0],
    )
    assert by_batch["ids"].keys() == {0, 1, 2}
    for label, observations in raw.items():
        assert_moments(by_batch["ids"][label], observations)

    by_token = run_quietly(
        root_share,
        batches,
        reducers={"ids": lambda _, batch: batch["ids"]},
        group_by=lambda batch: ["odd" if i % 2 else "even" for i in batch["ids"]],
    )
    for label, rest in (("odd", 1), ("even", 0)):
        own = [batch["ids"][batch["ids"] % 2 == rest] for batch in batches]
        assert_moments(by_token["ids"][label], own)


def test_labels_of_tokens_do_for_several_numbers_of_each():
    batches = [np.arange(6.0).reshape(2, 3), 10 + np.arange(9.0).reshape(3, 3)]
    study = run_quietly(
        lambda x: x,
        batches,
        reducers={"x": lambda x, _: x, "row": lambda x, _: x.sum(1)},
        group_by=lambda x: ["first" if row == 0 else "other" for row in range(len(x))],
    )
    for group, rows in (("first", slice(0, 1)), ("other", slice(1, None))):
        assert_moments(study["x"][group], [x[rows].ravel() for x in batches])
        assert_moments(study["row"][group], [x[rows].sum(1) for x in batches])


# Standard errors


def test_of_equal_examples_it_is_that_of_their_means():
    random = np.random.default_rng(2)
    examples = random.normal(size=(31, 7)) + random.normal(size=(31, 1))
    study = run_quietly(lambda x: x, examples, reducers=X)
    means = examples.mean(1)
    assert study["x"]["all"].stderr == pytest.approx(means.std(ddof=1) / math.sqrt(31), rel=1e-12)
    naive = examples.std(ddof=1) / math.sqrt(examples.size)
    assert study["x"]["all"].stderr > 1.5 * naive


def test_of_single_numbers_it_is_the_usual_one():
    numbers = np.random.default_rng(3).normal(size=29)
    study = run_quietly(lambda x: x, numbers, reducers=X)
    assert study["x"]["all"].stderr == pytest.approx(numbers.std(ddof=1) / math.sqrt(29), rel=1e-12)


def test_it_is_the_deviation_of_means_of_correlated_numbers():
    """Sentences of 1 to 23 tokens; what a sentence has in common is ten times what a token adds."""
    random = np.random.default_rng(4)
    sizes = random.integers(1, 24, 97)
    of = np.repeat(np.arange(97), sizes)
    common, own = 1.0, 0.1
    known = math.sqrt(common**2 * np.square(sizes).sum() + own**2 * sizes.sum()) / sizes.sum()
    means, squares, naive = [], [], []
    for _ in range(1000):
        numbers = 3 + common * random.normal(size=97)[of] + own * random.normal(size=of.size)
        moments = Moments.of(numbers, of)
        means.append(moments.mean)
        squares.append(moments.stderr**2)
        naive.append(numbers.std(ddof=1) / math.sqrt(numbers.size))
    assert np.std(means) == pytest.approx(known, rel=0.07)  # 3 standard errors of a deviation
    assert math.sqrt(np.mean(squares)) == pytest.approx(known, rel=0.05)
    assert np.mean(naive) < known / 3
    within = np.abs(np.array(means) - 3) < 1.96 * np.sqrt(squares)
    assert 0.92 < within.mean() < 0.97


def test_examples_may_share_a_batch():
    random = np.random.default_rng(5)
    examples = [random.normal(size=3) + 5 * random.normal() for _ in range(17)]
    wanted = run_quietly(lambda x: x, examples, reducers=X)
    assert_moments(wanted["x"]["all"], examples)
    assert wanted["x"]["all"].examples == 17
    batches = [np.stack(examples[:5]), np.stack(examples[5:])]
    for cluster_by in (
        lambda x: np.arange(len(x)),
        lambda x: [str(row) for row in range(len(x))],
        lambda x: np.tile(np.arange(len(x))[:, None], 3),
        lambda x: np.repeat(np.arange(len(x)), 3),
    ):
        study = run_quietly(lambda x: x, batches, reducers=X, cluster_by=cluster_by)
        found, expected = study["x"]["all"], wanted["x"]["all"]
        assert (found.count, found.examples) == (51, 17)
        assert found.mean == pytest.approx(expected.mean, rel=1e-12)
        assert found.stderr == pytest.approx(expected.stderr, rel=1e-12)
    by_batch = run_quietly(lambda x: x, batches, reducers=X)
    assert_moments(by_batch["x"]["all"], [batch.ravel() for batch in batches])
    (one,) = run_quietly(lambda x: x, batches[:1], reducers=X)["x"].values()
    assert one.examples == 1 and math.isnan(one.stderr)


def test_examples_in_groups():
    """An example counts in each group that has a number of it."""
    batch = np.array([[1.0, 2, 30], [4, 5, 60], [7, 8, 10]])
    kinds = np.array([["a", "a", "b"], ["a", "b", "b"], ["b", "b", "b"]])
    study = run_quietly(
        lambda x: x,
        [batch, batch + 0.5],
        reducers=X,
        group_by=lambda _: kinds,
        cluster_by=lambda _: [0, 1, True],
    )
    for kind in "ab":
        rows = [
            row[own == kind]
            for x in (batch, batch + 0.5)
            for row, own in zip(x, kinds, strict=True)
        ]
        assert_moments(study["x"][kind], rows)
    assert study["x"]["a"].examples == 4 and study["x"]["b"].examples == 6


@pytest.mark.parametrize("far", [0.0, 1e9])
def test_moments_merge_in_any_order(far):
    random = np.random.default_rng(6)
    examples = [far + random.normal(size=n) + random.normal() for n in (2, 1, 5, 3, 7, 1, 4)]
    whole = Moments()
    for x in examples:
        whole = whole.merged(Moments.of(x))
    left = functools.reduce(Moments.merged, map(Moments.of, examples[:3]))
    right = functools.reduce(Moments.merged, map(Moments.of, examples[3:]))
    for merged in (whole, left.merged(right), right.merged(left), Moments().merged(whole)):
        assert_moments(merged, examples)


def test_equal_numbers_have_a_standard_error_of_zero():
    study = run_quietly(lambda x: x, [np.full(n, 0.1) for n in (3, 5, 7)], reducers=X)
    assert study["x"]["all"].stderr == pytest.approx(0, abs=1e-16)


def test_one_observation_has_a_mean_and_no_standard_error():
    study = run_quietly(lambda x: x, [np.ones(3)], reducers={"x": lambda *_: 7})
    assert study["x"]["all"].mean == 7 and math.isnan(study["x"]["all"].stderr)


# What is no number


def test_what_is_dropped_is_counted():
    batches = [np.array([1.0, np.nan, 4.0]), np.array([np.nan, np.nan]), np.array([5.0])]
    study = run_quietly(
        lambda x: x,
        batches,
        reducers={
            "some": lambda _, x: x,
            "none": lambda _, x: np.nan,
            "empty": lambda _, x: x[:0],
            "masked": lambda _, x: np.ma.masked_invalid(x),
            "all": lambda _, x: np.ones(2),
        },
    )
    for name in ("some", "masked"):
        moments = study[name]["all"]
        assert_moments(moments, batches)
        assert (moments.count, moments.examples) == (3, 2)
        assert (moments.dropped, moments.dropped_examples) == (3, 1)
    assert study["none"]["all"] == Moments(dropped=3, dropped_examples=3)
    assert study["empty"]["all"] == Moments()
    for name in ("none", "empty"):
        assert math.isnan(study[name]["all"].mean) and math.isnan(study[name]["all"].stderr)
    assert_moments(study["all"]["all"], [np.ones(2)] * 3)


def test_what_is_dropped_is_counted_by_group_and_example():
    study = run_quietly(
        lambda x: x,
        [np.array([[1.0, np.nan, 2.0], [np.nan, 3.0, np.nan]])],
        reducers=X,
        group_by=lambda x: np.array([["a", "b", "a"]] * 2),
        cluster_by=lambda x: [0, 1],
    )
    assert_moments(study["x"]["a"], [[1, 2], [np.nan, np.nan]])
    assert_moments(study["x"]["b"], [[np.nan], [3]])


def test_an_infinite_observation_stops_the_study():
    message = r"(?s)2 of 3 observations of 'x' are infinite, and so would be .*In batch 1"
    with pytest.raises(FloatingPointError, match=message):
        run_quietly(lambda x: x, [np.ones(3), np.array([np.inf, 1, -np.inf])], reducers=X)


def test_a_dict_of_statistics():
    study = run_quietly(
        lambda x: x,
        [np.arange(3.0)],
        reducers={"x": lambda _, x: {"mean": x.mean(), 3: x}, "y": lambda _, x: {}},
    )
    assert {name: groups["all"].count for name, groups in study.statistics.items()} == {
        "x/mean": 1,
        "x/3": 3,
    }


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.int8, np.uint32, bool])
def test_dtypes_accumulate_in_float64(dtype):
    batch = np.array([1, 0, 1], dtype)
    study = run_quietly(lambda x, mask: x, [batch] * 700, reducers={"x": lambda y, _: y}, pad=0)
    assert_moments(study["x"]["all"], [[1, 0, 1]] * 700)


# Provenance


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Said:
    value: jax.Array
    semiring: str = dataclasses.field(metadata={"static": True})

    @property
    def provenance(self):
        return {"semiring": self.semiring, "granularity": ("op", np.inf)}


def test_provenance_collects_what_the_outputs_say():
    study = run_quietly(
        lambda x: {"a": Said(x, "max"), "b": [Said(x, "sum"), x]},
        [np.ones(3), np.ones(11)],
        reducers={"x": lambda output, _: output["a"].value},
        provenance={"model": "tiny", "layers": (1, np.int64(2))},
    )
    said = dict(study.provenance)
    assert said["semiring"] == ["max", "sum"] and said["granularity"] == ["op", "inf"]
    assert said["model"] == "tiny" and said["layers"] == [1, 2]
    assert said["jax"] == jax.__version__ and said["numpy"] == np.__version__
    assert {"semijax", "jaxlib", "python"} <= said.keys()
    assert said["reducers"] == ["x"] and said["compiled"] == 2
    assert "provenance_collects" in said["function"]


def test_outputs_of_two_semirings_have_no_mean_in_common(tmp_path):
    def fn(x):
        return Said(x, "max" if x.size < 10 else "sum")

    reducers = {"x": lambda output, _: output.value}
    with pytest.raises(ValueError, match=r"semiring is 'sum', the study's 'max'.*\n.*batch 1"):
        run_quietly(fn, [np.ones(3), np.ones(11)], reducers=reducers)
    checkpoint = tmp_path / "state.json"
    run_quietly(fn, [np.ones(3)], reducers=reducers, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="semiring is 'sum', the study's 'max'"):
        run_quietly(fn, [np.ones(3), np.ones(11)], reducers=reducers, checkpoint=checkpoint)


# Checkpoints


def sentence_study(checkpoint, batches=None, reducer=tokens, **options) -> Study:
    """What is killed: two statistics, three groups, two buckets or more."""
    return run_quietly(
        root_share,
        sentences(13) if batches is None else batches,
        reducers={"share": reducer, "n": lambda _, batch: batch["ids"].size},
        group_by=lambda batch: int(batch["label"][0]),
        checkpoint=checkpoint,
        pad=PAD,
        **{"checkpoint_every": 3} | options,
    )


def killed_study(checkpoint: str, where: str, after: int) -> None:
    """Run the study in a process that kills itself at a call of a function."""
    calls = -1

    def die_at_call(die) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            die()
            os.kill(os.getpid(), signal.SIGKILL)

    fsync, replace = os.fsync, os.replace

    seen = set()

    def reducer(output, batch):
        if (ids := batch["ids"].tobytes()) not in seen:  # one that is compared is reduced twice
            seen.add(ids)
            die_at_call(lambda: None)
        return tokens(output, batch)

    def torn_fsync(file):
        die_at_call(lambda: os.ftruncate(file, 40))
        fsync(file)

    def no_replace(*paths):
        die_at_call(lambda: None)
        replace(*paths)

    def last_replace(*paths):
        die_at_call(lambda: replace(*paths))
        replace(*paths)

    if where == "torn":
        os.fsync = torn_fsync
    elif where != "reducer":
        os.replace = {"before": no_replace, "renamed": last_replace}[where]
    sentence_study(checkpoint, reducer=reducer if where == "reducer" else tokens)


@pytest.fixture(scope="module")
def uninterrupted() -> Study:
    return sentence_study(None)


# Calls are counted from 0; of a write's, the first is that of a study that has seen no batch.
@pytest.mark.parametrize(
    "kills",
    [
        [("torn", 0), ("reducer", 0), ("before", 0), ("reducer", 5)],
        [("before", 2), ("reducer", 4), ("torn", 1)],
        [("renamed", 0), ("renamed", 1), ("before", 2), ("reducer", 0)],
        [("reducer", 12), ("renamed", 0)],
    ],
)
def test_a_killed_study_ends_with_the_same_numbers(tmp_path, uninterrupted, kills):
    checkpoint = tmp_path / "state.json"
    for where, after in kills:
        process = subprocess.run(
            [sys.executable, __file__, str(checkpoint), where, str(after)],
            capture_output=True,
            text=True,
        )
        assert process.returncode == -signal.SIGKILL, process.stderr
    written = batches_in(checkpoint)
    reduced = []

    def reducer(output, batch):
        reduced.append(batch["ids"].tolist())
        return tokens(output, batch)

    assert sentence_study(checkpoint, reducer=reducer) == uninterrupted
    once = [ids for ids, _ in itertools.groupby(reduced)]
    assert once == [batch["ids"].tolist() for batch in sentences(13)[written:]]
    assert len(reduced) - len(once) == (written < 13)  # the first one is padded, and compared
    assert batches_in(checkpoint) == 13


def batches_in(checkpoint: pathlib.Path) -> int:
    return json.loads(checkpoint.read_text())["study"]["batches"] if checkpoint.exists() else 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("stop", [0, 1, 5, 12])
def test_an_exception_loses_no_batch(tmp_path, uninterrupted, stop, error):
    checkpoint = tmp_path / "state.json"
    last = sentences(13)[stop]["ids"]

    def reducer(output, batch):
        if np.array_equal(batch["ids"], last):
            raise error("stop")
        return tokens(output, batch)

    with pytest.raises(error, match="stop"):
        sentence_study(checkpoint, reducer=reducer)
    assert batches_in(checkpoint) == stop
    assert sentence_study(checkpoint) == uninterrupted


def test_a_finished_study_returns_without_calling_the_function(tmp_path, uninterrupted):
    checkpoint = tmp_path / "state.json"

    def never(*_):
        raise AssertionError

    assert sentence_study(checkpoint) == uninterrupted
    assert sentence_study(checkpoint, reducer=never) == uninterrupted
    more = sentence_study(checkpoint, batches=sentences(13) + sentences(4, seed=1))
    assert more.batches == 17
    assert more == sentence_study(None, batches=sentences(13) + sentences(4, seed=1))


def changed(number: int, **leaves) -> list[dict]:
    batches = sentences(13)
    batches[number] = batches[number] | leaves
    return batches


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (changed(4, label=np.array([7])), "Batch 4 is not the one"),
        (changed(0, label=np.array([0], np.int32)), "Batch 0 is not the one"),
        (changed(12, extra=np.zeros(1)), "Batch 12 is not the one"),
        (sentences(13)[1:], "Batch 0 is not the one"),
        (sentences(13)[:-1], "is of 13 batches, there are only 12"),
        ([], "There are no batches"),
    ],
)
def test_a_study_resumes_on_the_same_batches_only(tmp_path, batches, message):
    checkpoint = tmp_path / "state.json"
    sentence_study(checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=message):
        sentence_study(checkpoint, batches=batches)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buckets": (8, 97)}, r"buckets was None and is \[8, 97\]"),
        ({"cluster_by": len}, "cluster_by was None and is 'len'"),
        ({"provenance": {"model": "b"}}, "model was None and is 'b'"),
        ({"reducers": {"share": tokens}}, r"reducers was \['n', 'share'\] and is \['share'\]"),
        ({"group_by": None}, "group_by was '.*lambda>' and is None"),
        ({"pad": None}, "pad was .* and is None"),
    ],
)
def test_a_study_resumes_with_the_same_settings_only(tmp_path, monkeypatch, options, message):
    checkpoint = tmp_path / "state.json"
    sentence_study(checkpoint)
    original = run_quietly
    monkeypatch.setitem(
        globals(), "run_quietly", lambda fn, b, **kwargs: original(fn, b, **kwargs | options)
    )
    with pytest.raises(ValueError, match=message):
        sentence_study(checkpoint)


def test_a_study_resumes_with_the_same_versions_only(tmp_path):
    checkpoint = tmp_path / "state.json"
    sentence_study(checkpoint)
    data = json.loads(checkpoint.read_text())
    data["settings"] |= {"jax": "0.0.1", "model": "a"}
    checkpoint.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"jax was '0.0.1' and is .*; model was 'a' and is None"):
        sentence_study(checkpoint)


def test_what_an_older_version_wrote_is_not_misread(tmp_path):
    """It had three numbers of a mean, and no layout."""
    checkpoint, saved = tmp_path / "state.json", tmp_path / "study.json"
    sentence_study(checkpoint).save(saved)
    for path, layout in itertools.product((checkpoint, saved), (None, 2)):
        data = json.loads(path.read_text())
        assert data.pop("layout") == 3
        if layout is None:
            study = data.get("study", data)
            study["statistics"] = [
                [name, [[group, 5, 0.5, 2.0] for group, *_ in groups]]
                for name, groups in study["statistics"]
            ]
        else:
            data["layout"] = layout
        old = tmp_path / f"old_{layout}_{path.name}"
        old.write_text(json.dumps(data))
        found = rf"in layout {layout or 1}, of another version .* layout 3, .*another path\."
        if path is checkpoint:
            with pytest.raises(ValueError, match=rf"a checkpoint of run_study {found}"):
                sentence_study(old)
        else:
            with pytest.raises(ValueError, match=rf"a saved Study {found}"):
                Study.load(old)
        assert json.loads(old.read_text()) == data


def test_moments_of_other_fields_are_not_misread(tmp_path):
    path = tmp_path / "study.json"
    small_study().save(path)
    data = json.loads(path.read_text())
    data["statistics"][0][1][0].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"is not a saved Study: .*zip"):
        Study.load(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"batches": 3}', '{"layout": 3}', "\x00"])
def test_another_file_is_no_checkpoint_and_no_study(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json is not a checkpoint of run_study"):
        sentence_study(path)
    with pytest.raises(ValueError, match=r"other\.json is not a saved Study"):
        Study.load(path)
    assert path.read_text() == content


def test_a_checkpoint_that_cannot_be_written_fails_before_the_first_batch(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_quietly(
            lambda _: pytest.fail("called"),
            [np.ones(3)],
            reducers={"x": lambda *_: 0},
            checkpoint=tmp_path / "nowhere" / "state.json",
        )


# What a study shows


def small_study() -> Study:
    return run_quietly(
        lambda x: x,
        [np.arange(1.0, 4.0), np.array([6.0]), np.array([np.nan, 2.0])],
        reducers={"<x>": lambda _, x: x, "nan": lambda *_: np.nan},
        group_by=lambda x: "<b>" if x.size != 1 else "a & b",
        provenance={"limit": np.inf},
    )


@pytest.mark.parametrize("labels", [["x", "é\ud800"], [1, -2], [True, False]])
def test_save_and_load(tmp_path, labels):
    path = tmp_path / "study.json"
    study = run_quietly(
        lambda x: x,
        [np.array([1 / 3, 2.0]), np.array([5.0, np.nan])],
        reducers=X,
        group_by=lambda x: labels,
        provenance={"limit": np.inf, "tuple": (1, None)},
    )
    study.save(path)
    loaded = Study.load(path)
    assert loaded == study
    assert [type(group) for group in loaded["x"]] == [type(label) for label in labels]
    assert math.isnan(loaded["x"][labels[1]].stderr)
    assert list(tmp_path.iterdir()) == [path]
    json.loads(path.read_text(), parse_constant=pytest.fail)  # strict JSON has no NaN


def test_a_dataframe():
    pandas = pytest.importorskip("pandas")
    frame = small_study().to_dataframe()
    expected = pandas.DataFrame(
        [
            # Examples of 3 and 1 numbers, all of mean 2.
            ["<x>", "<b>", 4, 2, 2.0, 0.0, 1, 0],
            ["<x>", "a & b", 1, 1, 6.0, math.nan, 0, 0],
            ["nan", "<b>", 0, 0, math.nan, math.nan, 2, 2],
            ["nan", "a & b", 0, 0, math.nan, math.nan, 1, 1],
        ],
        columns=[
            *("statistic", "group", "count", "examples", "mean", "stderr"),
            *("dropped", "dropped_examples"),
        ],
    )
    pandas.testing.assert_frame_equal(frame, expected)


def test_as_text():
    assert str(small_study()).splitlines()[1:] == [
        "statistic  group  count  examples  mean  stderr  dropped  dropped_examples",
        "<x>        <b>        4         2     2       0        1                 0",
        "<x>        a & b      1         1     6     nan        0                 0",
        "nan        <b>        0         0   nan     nan        2                 2",
        "nan        a & b      0         0   nan     nan        1                 1",
        "stderr: clustered by example; dropped: NaN, in no mean",
    ]


def test_as_html_everything_is_escaped():
    text = small_study()._repr_html_()
    assert "&lt;x&gt;" in text and "&lt;b&gt;" in text and "a &amp; b" in text
    assert "&lt;lambda&gt;" in text
    assert not any(tag in text for tag in ("<x>", "<b>", "<lambda>", "a & b"))


def test_progress_shows_a_bar(capfd):
    pytest.importorskip("tqdm")
    run_study(lambda x: x, [np.ones(3)] * 7, reducers={"x": lambda *_: 0})
    assert "7/7" in capfd.readouterr().err
    run_study(lambda x: x, [np.ones(3)] * 7, reducers={"x": lambda *_: 0}, progress=False)
    assert not capfd.readouterr().err


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'semijax\[study\]', or pass prog"):
        run_study(lambda x: x, [np.ones(3)], reducers={"x": lambda *_: 0})
    run_quietly(lambda x: x, [np.ones(3)], reducers={"x": lambda *_: 0})


# Errors


OVERFLOW = FloatingPointError, r"(?s)The moments of 'x' overflow float64.*In batch 1"
PADDED = {"fn": lambda x, mask: x, "pad": 0}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fn": 3}, TypeError, "Expected a callable value, got 3 of type int"),
        ({"batches": 3}, TypeError, "Expected an iterable of batches, got int"),
        ({"batches": {"a": 1}}, TypeError, "Expected an iterable of batches, got dict"),
        ({"batches": []}, ValueError, "There are no batches"),
        ({"batches": iter([])}, ValueError, "An iterator that was used up"),
        ({"batches": ["ab"]}, TypeError, r"(?s)of type <class 'str'> is not a valid.*In batch 0"),
        ({"reducers": {}}, TypeError, "non-empty mapping from names to functions, got {}"),
        ({"reducers": [len]}, TypeError, "non-empty mapping from names to functions"),
        ({"reducers": {1: len}}, TypeError, "name of a reducer must be str, got 1"),
        ({"reducers": {"x": 1}}, TypeError, "Expected a callable value, got 1"),
        ({"group_by": "x"}, TypeError, "Expected a callable value, got 'x'"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be an integer of at least 1"),
        ({"checkpoint_every": 1.5}, ValueError, "checkpoint_every must be an integer"),
        ({"axis": 0.5}, TypeError, "'float' object cannot be interpreted as an integer"),
        ({"axis": 1, **PADDED}, ValueError, "No leaf to pad has axis 1"),
        (
            {"batches": [3.5], **PADDED},
            ValueError,
            "No leaf to pad has axis 0.*pad=None pads nothing",
        ),
        (
            {"buckets": (8, 16)},
            ValueError,
            r"buckets=\(8, 16\) are lengths to pad to, but pad=None",
        ),
        ({"buckets": (8,), "pad": {"x": None}}, ValueError, "lengths to pad to, but pad=None"),
        ({"pad_tolerance": -1}, ValueError, "pad_tolerance must be a number of at least 0, got -1"),
        ({"pad_tolerance": "x"}, ValueError, "pad_tolerance must be a number of at least 0"),
        ({"pad_tolerance": math.nan}, ValueError, "pad_tolerance must be .* at least 0, got nan"),
        ({"buckets": ()}, ValueError, "increasing lengths, at least one, got .*pad=None"),
        ({"buckets": (8, 8)}, ValueError, r"increasing lengths, at least one, got \(8, 8\)"),
        ({"buckets": (8, 4)}, ValueError, "increasing lengths"),
        ({"buckets": (0, 4)}, ValueError, "length in buckets must be an integer of at least 1"),
        ({"buckets": (2.5,)}, ValueError, "length in buckets must be an integer"),
        ({"buckets": 64}, TypeError, "buckets must be a sequence of lengths, got 64"),
        ({"buckets": (2,), **PADDED}, ValueError, "length 3 is longer than the largest bucket, 2"),
        ({"pad": "x"}, TypeError, "pad must be a pytree of numbers and None, got 'x'"),
        ({**PADDED, "pad": {"y": 0}}, ValueError, "pad must be a pytree prefix of a batch"),
        (
            {**PADDED, "pad": 0.5, "batches": [np.arange(3)]},
            ValueError,
            "pad=0.5 is not a number of .*int",
        ),
        (
            {**PADDED, "pad": math.nan, "batches": [np.arange(3)]},
            ValueError,
            "pad=nan is not a number of",
        ),
        (
            {**PADDED, "pad": -1, "batches": [np.ones(3, np.uint8)]},
            ValueError,
            "pad=-1 is not .* uint8",
        ),
        (
            {**PADDED, "batches": [(np.ones(3), np.ones(4))]},
            ValueError,
            r"differ in length along axis 0: {'\[0\]': 3, '\[1\]': 4}",
        ),
        ({"reducers": {"x": lambda *_: "a"}}, TypeError, "real numbers, got 'a' for 'x'"),
        ({"reducers": {"x": lambda *_: None}}, TypeError, "real numbers, got None for 'x'"),
        ({"reducers": {"x": lambda *_: 1j}}, TypeError, "real numbers, got 1j for 'x'"),
        ({"reducers": {"x": lambda *_: {"y": {}}}}, TypeError, "real numbers, got {} for 'x/y'"),
        (
            {"reducers": {"x/y": lambda *_: 1, "x": lambda *_: {"y": 1}}},
            ValueError,
            "Two statistics are called 'x/y'",
        ),
        (
            {"reducers": {"x": lambda *_: -np.inf}},
            FloatingPointError,
            r"1 of 1 observations of 'x' are infinite.*\n.*In batch 0",
        ),
        ({"reducers": {"x": lambda *_: [1e308, 1e308]}}, FloatingPointError, "'x' overflow"),
        ({"reducers": {"x": lambda _, x: {3: 1, 4: 1e300}[len(x)]}}, *OVERFLOW),
        ({"group_by": lambda _: 1.5}, TypeError, "must be str, int or bool, got 1.5"),
        ({"group_by": lambda _: None}, TypeError, "must be str, int or bool, got None"),
        ({"group_by": lambda _: [1, True, 2]}, TypeError, "of one type, got bool and int"),
        ({"group_by": lambda x: len(x) == 3 or "a"}, TypeError, "of one type, got bool and str"),
        ({"group_by": lambda _: [1, 2]}, ValueError, "each of the 3 observations of 'x', got 2"),
        ({"cluster_by": 3}, TypeError, "Expected a callable value, got 3"),
        ({"cluster_by": lambda _: 1.5}, TypeError, "of examples must be str, int or bool, got 1"),
        (
            {"cluster_by": lambda _: [1, 2]},
            ValueError,
            "cluster_by must return one label, .* each of the 3 observations of 'x', got 2",
        ),
        ({"provenance": 3}, TypeError, "provenance must be a mapping, got 3"),
        ({"provenance": {"jax": 1, "compiled": 2}}, ValueError, "itself says .*: compiled, jax"),
    ],
)
def test_errors(options, error, message):
    defaults = {
        "fn": lambda x: x,
        "batches": [np.ones(3), np.ones(4)],
        "reducers": {"x": lambda _, x: x},
    }
    given = defaults | options
    with pytest.raises(error, match=message):
        run_quietly(given.pop("fn"), given.pop("batches"), **given)


def test_an_unknown_statistic():
    with pytest.raises(KeyError, match=r"No statistic 'y', there are \['<x>', 'nan'\]"):
        small_study()["y"]


def test_an_error_in_the_function_names_the_batch():
    def reducer(output, batch):
        return 1 / (3 - batch.size)

    with pytest.raises(ZeroDivisionError, match="In batch 1 of the study"):
        run_quietly(lambda x: x, [np.ones(2), np.ones(3)], reducers={"x": reducer})


def test_observations_are_kept_where_they_are_asked_for(tmp_path):
    """Each number that is in a mean, with where it comes from; a checkpoint keeps them too."""
    batches = [np.array([[1.0, 2.0], [np.nan, 4.0]]), np.array([[5.0, 6.0]])]

    def study(count, **options):
        return run_study(
            doubled,
            batches[:count],
            reducers={"value": lambda output, batch: output},
            group_by=lambda batch: np.array([["a", "b"]] * len(batch)),
            cluster_by=lambda batch: np.arange(len(batch)),
            progress=False,
            keep=True,
            **options,
        )

    rows = [
        ("value", "a", 0, 0, 2.0),
        ("value", "b", 0, 0, 4.0),
        ("value", "b", 0, 1, 8.0),
        ("value", "a", 1, 0, 10.0),
        ("value", "b", 1, 0, 12.0),
    ]
    path = tmp_path / "study.json"
    assert [*study(1, checkpoint=path).observations] == rows[:3]
    found = study(2, checkpoint=path)
    assert [*found.observations] == rows and found == study(2)
    found.save(tmp_path / "saved.json")
    assert Study.load(tmp_path / "saved.json") == found
    frame = found.to_dataframe(observations=True)
    assert [*frame.columns] == ["statistic", "group", "batch", "example", "value"]
    means = frame.groupby("group")["value"].mean()
    for group, moments in found["value"].items():
        assert means[group] == pytest.approx(moments.mean)
    forgot = run_study(doubled, batches, reducers={"value": lambda out, batch: out}, progress=False)
    assert forgot.observations == ()
    with pytest.raises(ValueError, match=r"keep=True\) keeps all"):
        forgot.to_dataframe(observations=True)


def doubled(x):
    return 2 * x


def test_drawn(tmp_path):
    study = run_study(
        doubled,
        [np.arange(3.0), np.arange(2.0) + 1],
        reducers={"first": lambda out, batch: out[0], "last": lambda out, batch: out[-1]},
        group_by=lambda batch: len(batch),
        progress=False,
    )
    picture = study.plot(unit="logits", title="Two lengths")
    assert "Logits per statistic and group" in picture.caption
    svg = drawn(picture, tmp_path)
    assert all(text in svg for text in ("first", "last", "Two lengths", "group"))
    assert "first" not in drawn(study.plot(["last"]), tmp_path)
    with pytest.raises(KeyError, match="No statistic 'middle'"):
        study.plot(["middle"])


def drawn(picture, folder):
    picture.save(folder / "picture.svg")
    return (folder / "picture.svg").read_text()


if __name__ == "__main__":
    killed_study(sys.argv[1], sys.argv[2], int(sys.argv[3]))
