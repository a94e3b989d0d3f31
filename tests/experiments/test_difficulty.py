"""Entropy against difficulty: the parts of a run against oracles, and a grid that is killed."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest
from flax import nnx

import semijax as sj
from semijax import zoo
from semijax.experiments import difficulty

from ..compilation import quick_jit

SIZES = {"length": 6, "vocabulary": 7}
TASK = zoo.AdjacentDuplicate(**SIZES)
OTHER = zoo.BinCountOnes(3, **SIZES)
QUICK = {"examples": 47, "epochs": 2, "progress": False}  # two batches


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that was never killed, and the folder of its models."""
    folder = tmp_path_factory.mktemp("models")
    return difficulty.run(TASK, 3, folder=folder, **QUICK), folder


@pytest.fixture(scope="module")
def classifier():
    config = zoo.BertConfig(11, 4, 1, 2, 3, 5, num_labels=5, initializer_range=0.5)
    return zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(0))


def from_embeddings(model, words, labels):
    """The summed loss of some sequences, from the word embeddings of their tokens."""
    embeddings, length = model.bert.embeddings, words.shape[-2]
    x = words + embeddings.token_type_embeddings(jnp.zeros(length, int))
    x = embeddings.LayerNorm(x + embeddings.position_embeddings(jnp.arange(length)))
    logits = model.classify(model.bert.encoder(x))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()


def data_of(folder):
    """The data of the finished run, and its model."""
    data = TASK.sample(47 + 4, seed=3)
    validation = zoo.Dataset(data.tokens[47:], data.labels[47:])
    training = zoo.interleave(zoo.Dataset(data.tokens[:47], data.labels[:47]))
    return training, validation, model_of(folder, 47)


def model_of(folder, n):
    return zoo.load_checkpoint(zoo.BertForSequenceClassification, folder / str(n))


def test_entropies_are_of_one_example_by_position(classifier):
    tokens, labels = np.array([[3, 1, 4, 1, 5], [9, 2, 9, 9, 8]]), np.array([2, 0])
    words = classifier.bert.embeddings.word_embeddings.embedding[...][tokens]

    @quick_jit
    def expected(words, label):
        def loss(words):
            return from_embeddings(classifier, words, label)

        return sj.semiring_grad(loss, sj.Entropy(), aggregate=-1)(words)

    found = difficulty.token_entropies(classifier, zoo.Dataset(tokens, labels))
    np.testing.assert_allclose(found[0], expected(words[0], labels[0]), rtol=1e-5)
    np.testing.assert_allclose(found[1], expected(words[1], labels[1]), rtol=1e-5)


def test_entropies_together_are_of_the_rows_of_the_embedding(classifier):
    tokens = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9], [3, 2, 3, 8, 4]])
    labels = np.array([2, 0, 4, 4])
    table = classifier.bert.embeddings.word_embeddings.embedding[...]

    def expected(part):
        def loss(table):
            return from_embeddings(classifier, table[tokens[part]], labels[part])

        entropies = quick_jit(sj.semiring_grad(loss, sj.Entropy(), aggregate=-1))(table)
        return entropies[tokens[part]]

    found = difficulty.token_entropies(classifier, zoo.Dataset(tokens, labels), together=3)
    np.testing.assert_allclose(found[:3], expected(slice(3)), rtol=1e-5)
    np.testing.assert_allclose(found[3:], expected(slice(3, 4)), rtol=1e-5)  # what is left


def test_training_reads_all_examples_in_batches(finished):
    training, _, model = data_of(finished[1])
    expected = zoo.BertForSequenceClassification(model.config, rngs=nnx.Rngs(3))
    structure, params, rest = nnx.split(expected, nnx.Param, ...)
    moments, rng = difficulty.OPTIMIZER.init(params), np.random.default_rng([3, 47])

    @quick_jit
    def step(params, moments, tokens, labels):
        def loss(params):
            return zoo.cross_entropy(
                nnx.merge(structure, params, rest), zoo.Dataset(tokens, labels)
            )

        updates, moments = difficulty.OPTIMIZER.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    for _ in range(2):
        order = rng.permutation(47)
        for chosen in (order[:32], order[32:]):
            batch = training.tokens[chosen], training.labels[chosen]
            params, moments = step(params, moments, *batch)
    for a, b in zip(
        jax.tree.leaves(params), jax.tree.leaves(nnx.state(model, nnx.Param)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_it_learns():
    row = difficulty.run(OTHER, 0, examples=230, epochs=40, progress=False)
    assert row.accuracy > 0.9
    assert row.code.compression > 1.5
    assert row.entropy != pytest.approx(row.untrained_entropy, rel=0.01)


def test_a_row_is_of_the_models(finished):
    row, folder = finished
    _, validation, model = data_of(folder)
    assert (row.task, row.seed, row.examples, row.epochs) == (TASK.name, 3, 47, 2)
    untrained = zoo.BertForSequenceClassification(model.config, rngs=nnx.Rngs(3))
    for each, mean, error in [
        (model, row.entropy, row.entropy_stderr),
        (untrained, row.untrained_entropy, row.untrained_stderr),
    ]:
        sums = np.asarray(difficulty.token_entropies(each, validation)).sum(1)
        assert mean == pytest.approx(sums.mean(), rel=1e-6)
        assert error == pytest.approx(sums.std(ddof=1) / math.sqrt(4), rel=1e-3)
    pooled = difficulty.token_entropies(model, validation, together=4).sum(1).mean()
    assert row.pooled_entropy == pytest.approx(float(pooled), rel=1e-6)
    assert row.pooled_entropy > row.entropy
    assert row.accuracy == pytest.approx(float(zoo.accuracy(model, validation)))
    assert model.config.num_labels == TASK.length


def test_the_code_is_of_models_of_growing_blocks(finished):
    row, folder = finished
    training, *_ = data_of(folder)
    sizes = zoo.paper_blocks(47)
    ends = list(itertools.accumulate(sizes))
    losses = [math.log(TASK.length)]
    for start, end in itertools.pairwise(ends):
        found = difficulty.logits(model_of(folder, start), training.tokens[start:end])
        right = found[np.arange(end - start), training.labels[start:end]]
        losses.append((np.logaddexp.reduce(found, axis=1) - right).mean())
    assert row.code.sizes == sizes
    assert row.code.losses == pytest.approx(losses, rel=1e-4)
    assert sorted(int(kept.name) for kept in folder.iterdir()) == ends


def test_logits_are_those_of_the_model(finished):
    training, _, model = data_of(finished[1])
    for n in (1, 32, 47):
        found = difficulty.logits(model, training.tokens[:n])
        wanted = quick_jit(lambda tokens: model(tokens))(training.tokens[:n])
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_run_that_was_killed_goes_on(finished, tmp_path, monkeypatch):
    trained, train = [], difficulty._train

    def killed(model, data, *rest):
        if len(trained) == 5:
            raise KeyboardInterrupt
        train(model, data, *rest)
        trained.append(len(data.labels))

    monkeypatch.setattr(difficulty, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        difficulty.run(TASK, 3, folder=tmp_path, **QUICK)
    assert len(trained) == 5
    trained.append(None)
    assert difficulty.run(TASK, 3, folder=tmp_path, **QUICK) == finished[0]
    trained.remove(None)
    assert trained == list(itertools.accumulate(zoo.paper_blocks(47)))


def test_a_grid_runs_what_is_not_in_the_table(finished, tmp_path, monkeypatch):
    runs, run = [], difficulty.run

    def counted(task, seed, **options):
        runs.append((task, seed))
        return run(task, seed, **options)

    monkeypatch.setattr(difficulty, "run", counted)
    first = difficulty.grid([TASK], [3], tmp_path, **QUICK)
    again = difficulty.grid([OTHER, TASK], [3, 5], tmp_path, **QUICK)
    assert runs == [(TASK, 3), (OTHER, 3), (OTHER, 5), (TASK, 5)]
    assert again["task"].tolist() == [TASK.name, OTHER.name, OTHER.name, TASK.name]
    assert again.iloc[:1].to_dict() == first.to_dict()
    for name, value in finished[0].record().items():
        wanted = pytest.approx(value, rel=1e-14) if isinstance(value, float) else value
        assert first.loc[0, name] == wanted

    shorter = difficulty.grid([TASK], [3], tmp_path, **QUICK | {"epochs": 1})
    assert shorter["epochs"].tolist() == [1]
    assert len(difficulty.read(tmp_path)) == 5
    assert sorted(kept.parts[-2:] for kept in tmp_path.glob("models/*/*")) == sorted(
        (f"{row.task}-{row.seed}-47-{row.epochs}", "47")
        for row in difficulty.read(tmp_path).itertuples()
    )


def test_a_row_has_all_of_the_code(finished):
    code, record = finished[0].code, finished[0].record()
    sizes, losses = record["sizes"].split(), record["losses"].split()
    again = zoo.CodeLength(record["classes"], tuple(map(int, sizes)), tuple(map(float, losses)))
    assert again == code
    assert record["bits"] == again.bits and record["published"] == again.published
    assert record["uniform_bits"] == pytest.approx(47 * math.log2(6))


def test_all_runs_share_what_is_compiled(finished):
    compiled = difficulty._step._cache_size()
    difficulty.run(OTHER, 11, **QUICK | {"examples": 101})
    assert difficulty._step._cache_size() == compiled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 20}, "20 examples are too few for the 14 blocks"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
    ],
)
def test_a_run_of_nothing_is_refused(options, message, capsys, tmp_path):
    with pytest.raises(ValueError, match=message):
        difficulty.run(TASK, 0, **QUICK | options)
    ((name, value),) = options.items()
    with pytest.raises(SystemExit):
        difficulty.main(["--out", str(tmp_path), f"--{name}", str(value)])
    assert message in capsys.readouterr().err


def test_the_command_runs_the_tasks_it_is_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "figure_5_tasks", lambda: (TASK, OTHER))
    line = ["--out", str(tmp_path), "--seeds", "3", "--examples", "47", "--epochs", "2"]
    difficulty.main([*line, "--tasks", "Bin*", "*Ones(3)"])
    assert "BinCountOnes(3)" in capsys.readouterr().out
    assert difficulty.read(tmp_path)["task"].tolist() == [OTHER.name]
    difficulty.main(line)
    output = capsys.readouterr().out
    assert TASK.name in output and OTHER.name in output
    assert f"Written to {tmp_path / 'difficulty.csv'}." in output


def test_the_command_knows_no_other_tasks(tmp_path, capsys):
    with pytest.raises(SystemExit):
        difficulty.main(["--out", str(tmp_path), "--tasks", "Bin*", "Sorting"])
    error = capsys.readouterr().err
    assert "no task is called 'Sorting'" in error and "BinCountOnes(36)" in error
    assert not any(tmp_path.iterdir())


def test_a_held_out_error_is_that_of_points_a_polynomial_has_not_seen():
    x = np.array([0.0, 1.0, 2.0, 5.0, 7.0])
    assert difficulty.held_out_error(x, 3 * x - 1, 1) == pytest.approx(0, abs=1e-18)
    assert difficulty.held_out_error(x, x**2, 2) == pytest.approx(0, abs=1e-18)
    y = np.array([0.0, 0.0, 0.0, 0.0, 1.0])
    without_last = [
        np.polyval(np.polyfit(np.delete(x, n), np.delete(y, n), 1), x[n]) for n in range(5)
    ]
    expected = np.mean((y - without_last) ** 2)
    assert difficulty.held_out_error(x, y, 1) == pytest.approx(expected)


def made_up_grid(entropy, seeds=3, accuracy=1.0):
    rng = np.random.default_rng(0)
    rows = []
    for seed, bins in itertools.product(range(seeds), (2, 3, 4, 6, 9, 12)):
        difficulty_of = 10 + bins + rng.normal()
        noise = rng.normal()
        rows.append(
            {
                "task": f"BinCountOnes({bins})",
                "seed": seed,
                "accuracy": accuracy,
                "published": difficulty_of,
                "entropy": entropy(difficulty_of) + noise,
                "untrained_entropy": 1000 + rng.normal(),
            }
        )
    return pandas.DataFrame(rows)


def test_a_quadratic_is_told_from_a_line():
    (bent,) = difficulty.claims(made_up_grid(lambda x: 20 * (x - 16) ** 2))
    assert bent.verdict == "confirmed" and bent.ours.n == 3
    (straight,) = difficulty.claims(made_up_grid(lambda x: 50 * x))
    assert straight.verdict != "confirmed"


def test_tasks_that_were_not_learnt_make_no_claim():
    assert difficulty.claims(made_up_grid(abs, accuracy=0.8)) == []
