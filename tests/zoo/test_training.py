"""The classifier and its trainer: it learns, stops in time, and survives being saved."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import serialization

from semijax import zoo

SMALL = zoo.SequenceClassifier(vocabulary=7, length=5, width=6, heads=3, intermediate=11, layers=2)


@pytest.fixture(scope="module")
def splits():
    return zoo.split(zoo.first_token_repeated_once(500, length=5, vocabulary=7))


@pytest.fixture(scope="module")
def trained(splits):
    return zoo.train(SMALL, splits.train, splits.validation, epochs=3, progress=False)


def test_classify_after_embed_is_the_whole_model(trained, splits):
    variables = {"params": trained.params}
    tokens = splits.test.tokens[:3]
    embeddings = SMALL.apply(variables, tokens, method="embed")
    logits = SMALL.apply(variables, embeddings, method="classify")
    assert embeddings.shape == (3, 5, 6)
    assert logits.shape == (3, 2)
    np.testing.assert_array_equal(logits, zoo.predict(SMALL, trained.params, tokens))
    one = SMALL.apply(variables, tokens[1])
    np.testing.assert_allclose(one, logits[1], rtol=1e-5)


def test_training_lowers_the_loss(trained):
    assert len(trained.losses) == len(trained.accuracies) == 3
    assert trained.losses[-1] < trained.losses[0]
    assert all(0 <= accuracy <= 1 for accuracy in trained.accuracies)


def test_the_seed_decides(trained, splits):
    again, other = (
        zoo.train(SMALL, splits.train, splits.validation, seed=seed, epochs=3, progress=False)
        for seed in (0, 1)
    )
    assert again.losses == trained.losses
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
    assert other.losses != trained.losses


def test_training_stops_when_every_validation_example_is_right(splits):
    # One label only: the classifier's bias learns it within an epoch or two.
    ones = zoo.Dataset(splits.train.tokens, np.ones_like(splits.train.labels))
    trained = zoo.train(SMALL, ones, ones, epochs=50, progress=False)
    assert trained.accuracies[-1] == 1
    assert 1 not in trained.accuracies[:-1]
    assert len(trained.accuracies) < 50


def test_mistakes_are_counted(trained, splits):
    predicted = np.argmax(zoo.predict(SMALL, trained.params, splits.test.tokens), axis=-1)
    right = zoo.Dataset(splits.test.tokens, predicted)
    wrong = zoo.Dataset(splits.test.tokens, 1 - predicted)
    assert zoo.mistakes(SMALL, trained.params, right) == 0
    assert zoo.mistakes(SMALL, trained.params, wrong) == len(predicted)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 351}])
def test_nothing_to_train_is_refused(splits, options):
    with pytest.raises(ValueError, match="at least one epoch, one full batch"):
        zoo.train(SMALL, splits.train, splits.validation, progress=False, **options)


def test_a_saved_model_comes_back_unchanged(trained, tmp_path):
    path = tmp_path / "new" / "folder" / "model.msgpack"
    zoo.save(trained, path)
    loaded = zoo.load(path)
    assert [file.name for file in path.parent.iterdir()] == ["model.msgpack"]
    for field in dataclasses.fields(zoo.Trained):
        if field.name != "params":
            assert getattr(loaded, field.name) == getattr(trained, field.name)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, trained.params)


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "model.msgpack"
    path.write_bytes(serialization.msgpack_serialize({"format": 0}))
    with pytest.raises(ValueError, match="doesn't hold a classifier saved in format 1"):
        zoo.load(path)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_demos_model_learns_its_task(seed):
    splits = zoo.split(zoo.first_token_repeated_once())
    trained = zoo.train(
        zoo.SequenceClassifier(), splits.train, splits.validation, seed=seed, progress=False
    )
    assert trained.accuracies[-1] == 1
    assert zoo.mistakes(trained.model, trained.params, splits.test) < 0.01 * 2_000
