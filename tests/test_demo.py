"""The demo, on a model that has hardly been trained."""

import re

import jax
import numpy as np
from matplotlib.image import imread

from semijax import demo, zoo

QUICK = ["--sequences", "320", "--epochs", "1"]


def tables(output):
    """The rows of all tables, split into cells."""
    return [line.split() for line in output.splitlines() if re.match(r" +\d+ +\d+", line)]


def test_it_shows_every_token_and_a_rerun_uses_the_saved_model(tmp_path, capsys):
    demo.main([*QUICK, "--out", str(tmp_path)])
    first = capsys.readouterr().out
    assert "Training a transformer on 224 sequences, seed 0." in first
    assert "None of 3 seeds reached 100%" in first
    assert f"Saved the model to {tmp_path / 'first_token_repeated_once.msgpack'}." in first

    headers = re.findall(r"^position.*", first, re.MULTILINE)
    assert [header.split() for header in headers] == [["position", "token", *demo.STATISTICS]] * 4
    rows = tables(first)
    assert [row[0] for row in rows] == [str(position) for position in range(10)] * 4
    assert np.isfinite([[float(value) for value in row[2:]] for row in rows]).all()
    assert len(re.findall(r"^Example .* comes back", first, re.MULTILINE)) == 2
    assert len(re.findall(r"^Example .* does not come back", first, re.MULTILINE)) == 2

    paths = re.findall(
        r"^The strongest path: ([+-]\S+), from position \d: (.*)", first, re.MULTILINE
    )
    assert len(paths) == 4
    assert all(told.endswith("squeeze") or "classifier" in told for _, told in paths)

    picture = tmp_path / "token_gradients.png"
    assert f"Wrote the picture to {picture}." in first
    height, width, _ = imread(picture).shape
    assert width > height > 500

    picture.unlink()
    demo.main([*QUICK, "--out", str(tmp_path)])
    again = capsys.readouterr().out
    assert "Using the saved model" in again
    assert "Training" not in again
    assert tables(again) == rows
    assert picture.exists()


def test_retrain_ignores_the_saved_model(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ATTEMPTS", 1)
    splits = zoo.split(zoo.first_token_repeated_once(320))
    path = tmp_path / "model"
    path.write_text("not a model")
    trained = demo.trained_model(path, splits, seed=5, epochs=1, retrain=True)
    assert trained.seed == zoo.load(path).seed == 5


def test_a_perfect_seed_ends_the_search(tmp_path, capsys, monkeypatch):
    splits = zoo.split(zoo.first_token_repeated_once(100))
    accuracies = {3: 0.9, 4: 1.0}

    def train(model, training, validation, *, seed, epochs):
        return zoo.Trained(model, {}, seed, (0.1,), (accuracies[seed],))

    monkeypatch.setattr(zoo, "train", train)
    trained = demo.trained_model(tmp_path / "model", splits, seed=3, epochs=1)
    assert trained.seed == 4
    assert "Seed 3: 90.00%" in capsys.readouterr().out


def test_the_gradient_column_is_the_gradient():
    splits = zoo.split(zoo.first_token_repeated_once(100))
    model = zoo.SequenceClassifier()
    variables = model.init(jax.random.key(0), splits.train.tokens[:1])
    data = zoo.Dataset(splits.test.tokens[:3], splits.test.labels[:3])
    trained = zoo.Trained(model, variables["params"], 0, (), ())

    def correct_logit(embeddings, label):
        return model.apply(variables, embeddings, method="classify")[label]

    for example in demo.explain_examples(trained, data):
        embeddings = model.apply(variables, example.tokens, method="embed")
        expected = jax.grad(correct_logit)(embeddings, example.label).sum(axis=-1)
        np.testing.assert_allclose(example.statistics["gradient"], expected, rtol=1e-4, atol=1e-6)
