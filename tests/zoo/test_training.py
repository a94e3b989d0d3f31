"""The trainer: it learns, stops in time, and goes on where it was killed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, serialization

from semijax import zoo

N = 203


class Classifier(nnx.Module):
    """With dropout and batch statistics: variables that are no parameters."""

    def __init__(self, seed=0, dropout=0.2):
        rngs = nnx.Rngs(seed)
        self.hidden = nnx.Linear(4, 11, rngs=rngs)
        self.norm = nnx.BatchNorm(11, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.output = nnx.Linear(11, 2, rngs=rngs)

    def __call__(self, x):
        return self.output(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


@pytest.fixture(scope="module")
def data():
    x = jax.random.normal(jax.random.key(0), (N, 4))
    return zoo.Dataset(np.asarray(x), np.asarray(x[:, 0] > 0, np.int32))


def trained(data, *, model=0, **options):
    model = Classifier(model)
    options = {"epochs": 5, "progress": False} | options
    history = zoo.train(model, zoo.cross_entropy, data, **options)
    return model, history


def variables(model):
    """All numbers in a model."""
    leaves = jax.tree.leaves(nnx.state(model))
    return [
        np.asarray(
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        for leaf in leaves
    ]


def assert_same(model, other):
    for a, b in zip(variables(model), variables(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_learns(data):
    model, history = trained(data, epochs=30, optimizer=optax.adam(1e-2))
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert zoo.accuracy(model, data) > 0.9
    assert history.scores == () and not history.reached


def test_other_variables_are_trained_along(data):
    untrained = Classifier()
    model, _ = trained(data)
    assert (model.norm.mean[...] != untrained.norm.mean[...]).all()
    assert model.dropout.rngs.count[...] > untrained.dropout.rngs.count[...]


def test_it_ends_in_evaluation_mode(data):
    model, _ = trained(data)
    np.testing.assert_array_equal(model(data.tokens), model(data.tokens))  # no dropout


def test_the_score_is_of_evaluation_mode(data):
    model, history = trained(data, evaluate=lambda model: zoo.accuracy(model, data))
    assert len(history.scores) == len(history.losses) == 5
    assert history.scores[-1] == pytest.approx(float(zoo.accuracy(model, data)))


def test_it_stops_at_a_score(data):
    scores = trained(data, evaluate=lambda model: zoo.accuracy(model, data))[1].scores
    until = sorted(scores)[-1]
    _, history = trained(data, evaluate=lambda model: zoo.accuracy(model, data), until=until)
    assert history.reached and history.scores[-1] >= until
    assert all(score < until for score in history.scores[:-1])
    assert not trained(data, evaluate=lambda model: zoo.accuracy(model, data), until=2)[1].reached


def test_the_seed_decides(data):
    (a, _), (again, _), (other, _) = (trained(data, seed=seed) for seed in (0, 0, 1))
    assert_same(a, again)
    assert (a.output.kernel[...] != other.output.kernel[...]).any()


def test_every_full_batch_is_read_once(data):
    seen = []

    def loss(model, batch):
        jax.debug.callback(lambda labels: seen.append(np.asarray(labels)), batch["number"])
        return jnp.sum(model.output.bias[...] ** 2)

    numbered = {"number": np.arange(N)}
    zoo.train(Classifier(), loss, numbered, epochs=2, batch_size=7, progress=False)
    jax.effects_barrier()
    assert len(seen) == 2 * (N // 7)
    epochs = np.concatenate(seen).reshape(2, -1)
    assert all(len(set(epoch)) == N // 7 * 7 for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_resumed_equals_never_killed(data, tmp_path):
    path = tmp_path / "folder" / "training.msgpack"
    whole, history = trained(data, evaluate=lambda model: zoo.accuracy(model, data))

    calls = []

    def observed(model):
        jax.debug.callback(lambda: calls.append(1))
        return zoo.accuracy(model, data)

    trained(data, epochs=2, evaluate=observed, checkpoint=path)
    resumed, resumed_history = trained(data, evaluate=observed, checkpoint=path)
    assert_same(whole, resumed)
    assert resumed_history == history
    jax.effects_barrier()
    count = len(calls)
    again, again_history = trained(data, evaluate=observed, checkpoint=path)
    jax.effects_barrier()
    assert len(calls) == count  # it was finished
    assert_same(whole, again)
    assert again_history == history


@pytest.mark.parametrize("change", ["model", "seed", "batch_size", "data"])
def test_a_checkpoint_of_another_training_is_refused(data, tmp_path, change):
    path = tmp_path / "training.msgpack"
    trained(data, epochs=1, checkpoint=path)
    other = data._replace(labels=1 - data.labels) if change == "data" else data
    options = {} if change == "data" else {change: 3}
    with pytest.raises(ValueError, match="is of another training"):
        trained(other, checkpoint=path, **options)


def test_a_checkpoint_of_more_epochs_is_refused(data, tmp_path):
    path = tmp_path / "training.msgpack"
    trained(data, epochs=2, checkpoint=path)
    with pytest.raises(ValueError, match="is of 2 epochs already, got epochs=1"):
        trained(data, epochs=1, checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"nonsense", serialization.msgpack_serialize({"a": 1})])
def test_other_files_are_no_checkpoints(data, tmp_path, content):
    path = tmp_path / "training.msgpack"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a checkpoint of a training"):
        trained(data, checkpoint=path)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": N + 1}])
def test_training_without_a_step_is_refused(data, options):
    with pytest.raises(ValueError, match="at least one epoch and one full batch"):
        trained(data, **options)


def test_arrays_of_different_lengths_are_refused(data):
    with pytest.raises(ValueError, match=r"differ in length: \[202, 203\]"):
        trained(data._replace(labels=data.labels[1:]))


def test_a_loss_that_is_not_finite_is_refused(data):
    with pytest.raises(FloatingPointError, match="mean loss of epoch 1 is nan"):
        zoo.train(
            Classifier(),
            lambda model, batch: zoo.cross_entropy(model, batch) * jnp.nan,
            data,
            epochs=2,
            progress=False,
        )


def ensemble(data, seeds=(0, 1, 2), **options):
    models = [Classifier(seed) for seed in seeds]
    options = {"epochs": 4, "progress": False} | options
    histories = zoo.train_ensemble(
        models, zoo.cross_entropy, [data] * len(models), seeds=seeds, **options
    )
    return models, histories


def test_members_end_as_if_trained_alone(data):
    def right(model):
        return zoo.accuracy(model, data)

    # Steps in proportion to the gradient: that of a bias before the norm is 0 but for rounding, of
    # which Adam would make steps of full size.
    options = {"evaluate": right, "epochs": 4, "optimizer": optax.sgd(0.05, momentum=0.9)}
    until = sorted(trained(data, **options)[1].scores)[-2]
    models, histories = ensemble(data, until=until, **options)
    assert len({len(history.losses) for history in histories}) > 1  # they stop at different epochs
    for seed, (model, history) in enumerate(zip(models, histories, strict=True)):
        alone, expected = trained(data, model=seed, seed=seed, until=until, **options)
        np.testing.assert_allclose(history.losses, expected.losses, rtol=1e-4)
        assert history.scores == pytest.approx(expected.scores) and (
            history.reached == expected.reached
        )
        for a, b in zip(variables(model), variables(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_each_member_has_its_own_data(data):
    reversed_labels = data._replace(labels=1 - data.labels)
    models = [Classifier(0), Classifier(0)]
    options = {"epochs": 20, "optimizer": optax.adam(1e-2), "progress": False}
    zoo.train_ensemble(models, zoo.cross_entropy, [data, reversed_labels], seeds=[0, 0], **options)
    assert zoo.accuracy(models[0], data) > 0.8 and zoo.accuracy(models[1], data) < 0.2


def test_a_resumed_ensemble_equals_one_never_killed(data, tmp_path):
    path = tmp_path / "ensemble.msgpack"
    whole, histories = ensemble(data)
    ensemble(data, epochs=2, checkpoint=path)
    resumed, again = ensemble(data, checkpoint=path)
    assert again == histories
    for a, b in zip(whole, resumed, strict=True):
        assert_same(a, b)


def test_ensembles_of_unequal_parts_are_refused(data):
    model, deeper = Classifier(), zoo.LSTMLanguageModel(5, 3, rngs=nnx.Rngs(0))
    for models, seeds, message in (
        ([], [], "at least one model"),
        ([model], [0, 1], "1 models, 1 data sets and 2 seeds"),
        ([model, deeper], [0, 1], "differ in their arrays only"),
    ):
        with pytest.raises(ValueError, match=message):
            zoo.train_ensemble(
                models, zoo.cross_entropy, [data] * len(models), seeds=seeds, epochs=1
            )
