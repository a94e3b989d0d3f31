"""Studies: their numbers are NumPy's on all observations, however they were padded and killed."""

from __future__ import annotations

import dataclasses
import functools
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


def sentences(n: int, seed: int = 0, longest: int = 90) -> list[dict]:
    """Batches of mixed lengths: ids from 1, a mask, and a label that must not be padded."""
    random = np.random.default_rng(seed)
    return [
        {
            "ids": random.integers(1, 50, length).astype(np.int32),
            "mask": np.ones(length, bool),
            "label": np.array([number % 3]),
        }
        for number, length in enumerate(random.integers(1, longest, n))
    ]


PAD = {"ids": 0, "mask": 0, "label": None}


def root_share(batch):
    """Of each token the root over the masked sum: wrong if what is padded counts."""
    roots = jnp.sqrt(batch["ids"].astype(jnp.float32)) + 1
    return {"share": roots / jnp.sum(roots, where=batch["mask"]), "label": batch["label"]}


def tokens(output, batch):
    return output["share"][: len(batch["ids"])]


def expected_shares(batch) -> np.ndarray:
    roots = np.sqrt(batch["ids"].astype(np.float32)) + 1
    return roots / roots.sum()


def assert_moments(moments: Moments, observations, rtol: float = 1e-12) -> None:
    observations = np.asarray(observations, np.float64)
    n = observations.size
    assert moments.count == n
    np.testing.assert_allclose(moments.mean, observations.mean(), rtol=rtol)
    np.testing.assert_allclose(
        moments.stderr, observations.std(ddof=1) / math.sqrt(n), rtol=max(rtol, 1e-6)
    )


# Padding


def test_a_function_that_compiles_itself_is_called_as_it_is():
    traced = []

    @jax.jit
    def scaled(scale, batch):
        traced.append(1)
        return scale * batch

    batches = [np.arange(3.0), np.arange(5.0)]
    for scale in (2.0, 3.0):
        study = run_study(
            lambda batch, scale=scale: scaled(scale, batch),
            batches,
            reducers={"value": lambda output, batch: output[: len(batch)]},
            jit=False,
            progress=False,
        )
        assert study["value"]["all"].mean == pytest.approx(scale * 13 / 8)
        assert study.provenance["compiled"] == 1
    assert len(traced) == 1


def test_200_sentences_compile_at_most_once_per_bucket():
    traced = []

    def fn(batch):
        traced.append(batch["ids"].shape)
        return root_share(batch)

    batches = sentences(200)
    lengths = {len(batch["ids"]) for batch in batches}
    assert len(lengths) > 40
    study = run_quietly(fn, iter(batches), reducers={"share": tokens}, pad=PAD)
    assert sorted(traced) == [(8,), (16,), (32,), (64,), (128,)]
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
    raw = np.concatenate([expected_shares(batch) for batch in batches])
    assert_moments(study["share"]["all"], raw, rtol=1e-6)
    unpadded = run_quietly(root_share, batches, reducers={"share": tokens}, pad=None)
    assert_moments(unpadded["share"]["all"], raw, rtol=1e-6)
    assert unpadded.provenance["compiled"] == len({len(batch["ids"]) for batch in batches})


def test_reducers_see_the_padded_output_and_the_batch_as_given():
    batch = (np.arange(5), jnp.ones((2, 5), bool), np.ones((3, 7)), 1.5)
    seen = []

    def reducer(output, given):
        seen.append((output, given))
        return 0

    run_quietly(
        lambda batch: batch, [batch], reducers={"x": reducer}, pad=(-1, 0, None, 0), axis=-1
    )
    ((ids, mask, other, number), given) = seen[0]
    np.testing.assert_array_equal(ids, [0, 1, 2, 3, 4, -1, -1, -1])
    np.testing.assert_array_equal(mask, [[True] * 5 + [False] * 3] * 2)
    assert other.shape == (3, 7) and number == 1.5
    assert all(isinstance(leaf, np.ndarray) for leaf in (ids, mask, other))
    assert isinstance(given[1], np.ndarray) and given[1].shape == (2, 5)
    np.testing.assert_array_equal(given[0], np.arange(5))


@pytest.mark.parametrize(
    ("length", "buckets", "padded"),
    [
        *[(0, None, 8), (1, None, 8), (8, None, 8), (9, None, 16), (64, None, 64), (65, None, 128)],
        *[(3, (3, 7), 3), (4, (3, 7), 7), (7, (3, 7), 7)],
    ],
)
def test_the_smallest_bucket_that_holds_it(length, buckets, padded):
    study = run_quietly(
        lambda x: x, [np.ones(length)], reducers={"n": lambda out, x: out.size}, buckets=buckets
    )
    assert study["n"]["all"].mean == padded


@pytest.mark.parametrize(("pad", "last"), [(0, False), (1, False), (True, True)])
def test_masks_are_padded_with_false(pad, last):
    study = run_quietly(
        lambda x: x, [np.ones(3, bool)], reducers={"last": lambda out, x: out[-1]}, pad=pad
    )
    assert study["last"]["all"].mean == last


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
    assert_moments(study["x"]["all"], np.concatenate(arrays))
    assert_moments(study["max"]["all"], [x.max() for x in arrays])
    assert_moments(study["big"]["all"], np.concatenate(arrays) > 1e9)


def test_groups_by_batch_and_by_observation():
    batches = sentences(23)
    raw = {label: [] for label in range(3)}
    for batch in batches:
        raw[int(batch["label"][0])].extend(batch["ids"])
    by_batch = run_quietly(
        root_share,
        batches,
        reducers={"ids": lambda _, batch: batch["ids"]},
        group_by=lambda batch: batch["label"][0],
        pad=PAD,
    )
    assert by_batch["ids"].keys() == {0, 1, 2}
    for label, observations in raw.items():
        assert_moments(by_batch["ids"][label], observations)

    by_token = run_quietly(
        root_share,
        batches,
        reducers={"ids": lambda _, batch: batch["ids"]},
        group_by=lambda batch: ["odd" if i % 2 else "even" for i in batch["ids"]],
        pad=PAD,
    )
    every = np.concatenate([batch["ids"] for batch in batches])
    assert_moments(by_token["ids"]["odd"], every[every % 2 == 1])
    assert_moments(by_token["ids"]["even"], every[every % 2 == 0])


def test_nan_is_no_observation():
    study = run_quietly(
        lambda x: x,
        [np.array([1.0, np.nan, 4.0]), np.array([np.nan])],
        reducers={
            "some": lambda _, x: x,
            "none": lambda _, x: np.nan,
            "empty": lambda _, x: x[:0],
            "masked": lambda _, x: np.ma.masked_invalid(x),
        },
    )
    assert_moments(study["some"]["all"], [1, 4])
    assert_moments(study["masked"]["all"], [1, 4])
    for name in ("none", "empty"):
        assert study[name]["all"] == Moments()
        assert math.isnan(study[name]["all"].mean) and math.isnan(study[name]["all"].stderr)


def test_one_observation_has_a_mean_and_no_standard_error():
    study = run_quietly(lambda x: x, [np.ones(3)], reducers={"x": lambda *_: 7})
    assert study["x"]["all"].mean == 7 and math.isnan(study["x"]["all"].stderr)


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
    study = run_quietly(lambda x: x, [np.ones(3, dtype)] * 700, reducers={"x": lambda y, _: y})
    assert study["x"]["all"] == Moments(5600, *moments_of_padded(dtype))


def moments_of_padded(dtype) -> tuple[float, float]:
    padded = np.array([1, 1, 1, 0, 0, 0, 0, 0] * 700, float)
    return padded.mean(), pytest.approx(((padded - padded.mean()) ** 2).sum(), rel=1e-12)


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

    def reducer(output, batch):
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
    calls = []

    def reducer(output, batch):
        calls.append(None)
        return tokens(output, batch)

    assert sentence_study(checkpoint, reducer=reducer) == uninterrupted
    assert len(calls) == 13 - written
    assert batches_in(checkpoint) == 13


def batches_in(checkpoint: pathlib.Path) -> int:
    return json.loads(checkpoint.read_text())["study"]["batches"] if checkpoint.exists() else 0


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("stop", [0, 1, 5, 12])
def test_an_exception_loses_no_batch(tmp_path, uninterrupted, stop, error):
    checkpoint = tmp_path / "state.json"
    calls = 0

    def reducer(output, batch):
        nonlocal calls
        calls += 1
        if calls == stop + 1:
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


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"batches": 3}', "\x00"])
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
        [np.arange(1.0, 4.0), np.array([2.0])],
        reducers={"<x>": lambda _, x: x, "nan": lambda *_: np.nan},
        group_by=lambda x: "<b>" if x.size > 1 else "a & b",
        provenance={"limit": np.inf},
    )


@pytest.mark.parametrize("labels", [["x", "é\ud800"], [1, -2], [True, False]])
def test_save_and_load(tmp_path, labels):
    path = tmp_path / "study.json"
    study = run_quietly(
        lambda x: x,
        [np.array([1 / 3, 2.0]), np.array([5.0, np.nan])],
        reducers={"x": lambda _, x: x},
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
            ["<x>", "<b>", 3, 2.0, 1 / math.sqrt(3)],
            ["<x>", "a & b", 1, 2.0, math.nan],
            ["nan", "<b>", 0, math.nan, math.nan],
            ["nan", "a & b", 0, math.nan, math.nan],
        ],
        columns=["statistic", "group", "count", "mean", "stderr"],
    )
    pandas.testing.assert_frame_equal(frame, expected)


def test_as_text():
    assert str(small_study()).splitlines()[1:] == [
        "statistic  group  count  mean   stderr",
        "<x>        <b>        3     2  0.57735",
        "<x>        a & b      1     2      nan",
        "nan        <b>        0   nan      nan",
        "nan        a & b      0   nan      nan",
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
        ({"axis": 1}, ValueError, "No leaf to pad has axis 1"),
        ({"batches": [3.5]}, ValueError, "No leaf to pad has axis 0.*pad=None pads nothing"),
        ({"buckets": ()}, ValueError, "increasing lengths, at least one, got .*pad=None"),
        ({"buckets": (8, 8)}, ValueError, r"increasing lengths, at least one, got \(8, 8\)"),
        ({"buckets": (8, 4)}, ValueError, "increasing lengths"),
        ({"buckets": (0, 4)}, ValueError, "length in buckets must be an integer of at least 1"),
        ({"buckets": (2.5,)}, ValueError, "length in buckets must be an integer"),
        ({"buckets": 64}, TypeError, "buckets must be a sequence of lengths, got 64"),
        ({"buckets": (2,)}, ValueError, "length 3 is longer than the largest bucket, 2"),
        ({"pad": "x"}, TypeError, "pad must be a pytree of numbers and None, got 'x'"),
        ({"pad": {"y": 0}}, ValueError, "pad must be a pytree prefix of a batch"),
        ({"pad": 0.5, "batches": [np.arange(3)]}, ValueError, "pad=0.5 is not a number of .*int"),
        ({"pad": math.nan, "batches": [np.arange(3)]}, ValueError, "pad=nan is not a number of"),
        ({"pad": -1, "batches": [np.ones(3, np.uint8)]}, ValueError, "pad=-1 is not .* uint8"),
        (
            {"batches": [(np.ones(3), np.ones(4))]},
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
            r"observation of 'x' is infinite.*\n.*In batch 0",
        ),
        ({"reducers": {"x": lambda *_: [1e308, 1e308]}}, FloatingPointError, "'x' overflow"),
        ({"reducers": {"x": lambda *_: [1e300, 1]}}, FloatingPointError, "'x' overflow"),
        ({"group_by": lambda _: 1.5}, TypeError, "must be str, int or bool, got 1.5"),
        ({"group_by": lambda _: None}, TypeError, "must be str, int or bool, got None"),
        ({"group_by": lambda _: [1, True, 2]}, TypeError, "of one type, got bool and int"),
        ({"group_by": lambda x: len(x) == 3 or "a"}, TypeError, "of one type, got bool and str"),
        ({"group_by": lambda _: [1, 2]}, ValueError, "each of the 3 observations of 'x', got 2"),
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


if __name__ == "__main__":
    killed_study(sys.argv[1], sys.argv[2], int(sys.argv[3]))
