"""The demo, on a model that has hardly been trained."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

import semijax as sj
from semijax import demo, zoo
from semijax.experiments import first_token

QUICK = ["--sequences", "320", "--epochs", "1", "--seed", "0"]


def test_it_tells_and_draws_and_a_rerun_reads_its_trainings(tmp_path, capsys):
    demo.main([*QUICK, "--out", str(tmp_path)])
    first = capsys.readouterr().out
    assert "Training on 224 sequences, seed 0" in first
    assert "None of 3 seeds gets all of them right" in first
    trainings = [tmp_path / f"training_{seed}.msgpack" for seed in range(3)]
    assert all(str(path) in first and path.exists() for path in trainings)

    rows = re.findall(r"^(all tokens|first|other|repeat) +(.*)", first, re.MULTILINE)
    assert [kind for kind, _ in rows] == ["first", "repeat", "other", "all tokens"] * 2
    numbers = np.array([numbers.split() for _, numbers in rows], float)
    assert numbers.shape == (8, 4) and (numbers >= 0).all()
    for granularity in ("element", "op"):
        picture = tmp_path / f"branches_{granularity}.png"
        assert str(picture) in first and imread(picture).std() > 0

    sentences = re.findall(r"^The strongest path from token .*", first, re.MULTILINE)
    assert len(sentences) == 2 and all("classifier" in sentence for sentence in sentences)

    before = [path.read_bytes() for path in trainings]
    demo.main([*QUICK, "--out", str(tmp_path)])
    again = capsys.readouterr().out
    assert again == first
    assert [path.read_bytes() for path in trainings] == before


@pytest.mark.parametrize("position", [0, 4])
def test_the_strongest_path_is_the_tokens_own(position):
    model = first_token.untrained_model()
    tokens = np.arange(1, 11)
    path = demo.strongest_path(model, tokens, 1, position)
    embeddings = model.bert.embeddings(tokens)
    best = sj.semiring_grad(
        lambda x: model.classify(model.bert.encoder(x))[1], sj.MaxProduct(), aggregate=-1
    )(embeddings)
    assert path.nodes[0].index[0] == position
    assert path.weight == pytest.approx(float(best[position]), rel=1e-4)
    told = demo.as_sentence(path, tokens, 1)
    assert told.startswith(f"The strongest path from token {position + 1} at position {position}")
    assert ("skip connection" in told) == (position == 0)  # only position 0 is pooled


def test_of_several_seeds_the_best_is_taken(tmp_path):
    splits = zoo.split(first_token.TASK.sample(320))
    model = demo.trained_model(splits, tmp_path, 0, 1)
    runs = [
        first_token.trained_model(
            splits, seed, epochs=1, checkpoint=tmp_path / f"training_{seed}.msgpack", progress=False
        )
        for seed in range(demo.ATTEMPTS)
    ]
    best, _ = max(runs, key=lambda run: run[1].scores[-1])
    np.testing.assert_array_equal(model(splits.test.tokens), best(splits.test.tokens))
