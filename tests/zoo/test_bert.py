"""BERT: the same numbers as Flax's of Hugging Face, and a graph that can be asked for by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import semijax as sj
from semijax import zoo
from semijax.zoo.bert import ACTIVATIONS

from ..compilation import quick_jit

SMALL = zoo.BertConfig(
    vocab_size=23,
    hidden_size=10,
    num_hidden_layers=2,
    num_attention_heads=5,
    intermediate_size=7,
    max_position_embeddings=11,
    num_labels=3,
)
CONFIGS = {
    "one layer": dataclasses.replace(SMALL, num_hidden_layers=1, pad_token_id=None),
    "relu, three token types": dataclasses.replace(
        SMALL, num_attention_heads=2, hidden_act="relu", type_vocab_size=3
    ),
    "untied, tanh gelu, three layers": dataclasses.replace(
        SMALL,
        num_hidden_layers=3,
        num_attention_heads=1,
        hidden_act="gelu_new",
        layer_norm_eps=1e-3,
        tie_word_embeddings=False,
    ),
}
TOKENS = np.random.default_rng(0).integers(1, 23, (3, 7))
MASK = np.arange(7) < np.array([[7], [5], [1]])


def randomised(model, seed=0):
    """With all parameters away from where they start, the biases and the norms' scales too."""
    flat, restore = ravel_pytree(nnx.state(model, nnx.Param))
    noise = np.random.default_rng(seed).normal(0, 0.3, flat.shape)
    nnx.update(model, restore(flat + jnp.asarray(noise, flat.dtype)))
    return model


def masked_lm(config=SMALL, seed=0):
    return randomised(zoo.BertForMaskedLM(config, rngs=nnx.Rngs(seed)), seed)


def classifier(config=SMALL, seed=0):
    return randomised(zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(seed)), seed)


def theirs(model, *inputs):
    """The outputs of Flax's class of the same name, with the same parameters."""
    import transformers

    config = transformers.BertConfig(**dataclasses.asdict(model.config))
    flax_model = getattr(transformers, f"Flax{type(model).__name__}")(config, _do_init=False)
    params = {}
    for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        *modules, leaf = map(str, path)
        inner = params
        for module in modules:
            inner = inner.setdefault(module, {})
        inner[leaf] = value[...]
    return quick_jit(lambda params: flax_model(*inputs, params=params))(params)


def compiled(model):
    return quick_jit(lambda *inputs: model(*inputs))


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_masked_lm_is_that_of_transformers(config):
    model = masked_lm(config)
    inputs = (TOKENS, MASK, TOKENS % config.type_vocab_size)
    logits = compiled(model)(*inputs)
    assert logits.shape == (3, 7, 23) and logits.std() > 0.5
    close(logits, theirs(model, *inputs).logits)


def test_classifier_and_encoder_are_those_of_transformers():
    inputs = (TOKENS, MASK, TOKENS % 2)
    model = classifier()
    assert model(*inputs).shape == (3, 3)
    close(model(*inputs), theirs(model, *inputs).logits)
    bare = randomised(zoo.BertModel(SMALL, rngs=nnx.Rngs(0)))
    expected = theirs(bare, *inputs)
    close(bare(*inputs), expected.last_hidden_state)
    close(bare.pooler(bare(*inputs)), expected.pooler_output)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_pytorch_and_one_node(name):
    x = jnp.linspace(-5, 5, 101)

    def activation(x):
        return ACTIVATIONS[name](x).sum()

    (node, _) = sj.explain(activation)(x)
    assert node.kind == "Diagonal"
    torch = pytest.importorskip("torch", reason="installed for Python 3.11 only")
    from transformers.activations import ACT2FN

    expected = ACT2FN[name](torch.tensor(np.asarray(x))).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](x), expected, atol=1e-6)


MODELS = {"masked LM": masked_lm, "classifier": classifier}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_any_leading_axes(build):
    model = build()
    inputs = (TOKENS, MASK, TOKENS % 2)
    run = compiled(model)
    single = np.stack([run(*example) for example in zip(*inputs, strict=True)])
    close(run(*inputs), single)
    close(run(TOKENS[None], MASK, (TOKENS % 2)[None]), single[None])
    close(compiled(jax.vmap(model))(*inputs), single)


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_padding_changes_nothing(build):
    run = compiled(build())
    for tokens, mask in zip(TOKENS[1:], MASK[1:], strict=True):
        expected = run(tokens[mask])
        of_tokens = mask if build is masked_lm else ...
        close(run(tokens, mask)[of_tokens], expected)
        close(run(np.where(mask, tokens, 0), mask)[of_tokens], expected)
    np.testing.assert_array_equal(run(tokens, mask.astype(int)), run(tokens, mask))


def test_defaults_of_masks_and_token_types():
    run = compiled(masked_lm())
    close(run(TOKENS), run(TOKENS, np.ones((3, 7)), 0 * TOKENS))
    assert not np.allclose(run(TOKENS), run(TOKENS, None, 0 * TOKENS + 1))


def test_a_row_without_tokens_harms_nobody():
    model = masked_lm()
    mask = MASK & np.array([[True], [False], [True]])
    close(model(TOKENS, mask)[::2], model(TOKENS, MASK)[::2])

    def loss(params):
        return nnx.merge(structure, params, rest)(TOKENS, mask).std()

    structure, params, rest = nnx.split(model, nnx.Param, ...)
    for leaf in jax.tree.leaves(quick_jit(jax.grad(loss))(params)):
        assert np.isfinite(leaf).all()


def test_parts_are_the_whole():
    model = masked_lm()
    hidden = model.bert.encoder(model.bert.embeddings(TOKENS), MASK)
    close(model.predict(hidden), model(TOKENS, MASK))
    close(model.predict(hidden[1, 2]), model(TOKENS, MASK)[1, 2])
    model = classifier()
    hidden = model.bert.encoder(model.bert.embeddings(TOKENS, TOKENS % 2), MASK)
    close(model.classify(hidden), model(TOKENS, MASK, TOKENS % 2))


def test_a_new_model():
    config = dataclasses.replace(
        SMALL, vocab_size=1009, initializer_range=0.1, pad_token_id=5, tie_word_embeddings=False
    )
    model = zoo.BertForMaskedLM(config, rngs=nnx.Rngs(0))
    words = model.bert.embeddings.word_embeddings.embedding[...]
    assert (words[5] == 0).all() and (words[4] != 0).all()
    for weights in (words, model.cls.predictions.decoder.kernel[...]):
        assert abs(weights.std() - 0.1) < 0.005 and abs(weights.mean()) < 0.005
    for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] in ("bias", "scale"):
            assert (value[...] == (path[-1] == "scale")).all()
    for tied, other in [(True, (SMALL,)), (False, (config,))]:
        head = zoo.BertForMaskedLM(*other, rngs=nnx.Rngs(0)).cls.predictions
        assert hasattr(head, "decoder") is not tied


RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def test_dropout_is_for_training():
    plain = classifier()
    model = classifier(dataclasses.replace(SMALL, **dict.fromkeys(RATES, 0.5)))
    np.testing.assert_array_equal(model(TOKENS), plain(TOKENS))
    model.train()
    first, second = model.bert.embeddings(TOKENS), model.bert.embeddings(TOKENS)
    assert (first == 0).any() and (second == 0).any() and (first != second).any()
    expected = np.where(first == 0, 0, 2 * plain.bert.embeddings(TOKENS))
    np.testing.assert_array_equal(first, expected)
    model.eval()
    np.testing.assert_array_equal(model(TOKENS), plain(TOKENS))


def test_where_dropout_is():
    def training(**rates):
        model = classifier(dataclasses.replace(SMALL, **rates))
        model.train()
        return model

    # At a rate of 1, what is left is what a dropped part doesn't reach.
    model = training(classifier_dropout=1.0)
    close(model(TOKENS), np.tile(model.classifier.bias[...], (3, 1)))
    close(training(hidden_dropout_prob=1.0)(TOKENS), model(TOKENS))  # the classifier's by default
    model = training(hidden_dropout_prob=1.0)
    assert (model.bert.embeddings(TOKENS) == 0).all()
    layer = model.bert.encoder.layer[0]
    x = jax.random.normal(jax.random.key(0), (7, 10))
    close(layer(x), layer.output.LayerNorm(layer.attention.output.LayerNorm(x)))
    attention = training(attention_probs_dropout_prob=1.0).bert.encoder.layer[0].attention.self
    assert (attention(x) == 0).all()


def test_dtypes():
    def build():
        config = dataclasses.replace(SMALL, dtype="bfloat16")
        model = zoo.BertForMaskedLM(config, rngs=nnx.Rngs(0))
        return nnx.state(model, nnx.Param), model(TOKENS, MASK)

    for leaf in jax.tree.leaves(nnx.eval_shape(build)):
        assert leaf.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_act": "gelo"}, "hidden_act must be one of 'gelu', .*, got 'gelo'"),
        ({"num_attention_heads": 3}, "num_attention_heads must divide hidden_size, got 3 and 10"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be an integer of at least 1, got 0"),
        ({"classifier_dropout": 1.5}, "classifier_dropout must be from 0 to 1, got 1.5"),
        ({"pad_token_id": 23}, r"pad_token_id must be a token of 0 .. 22, got 23"),
        ({"dtype": "int32"}, "dtype must be a floating point type, got 'int32'"),
    ],
)
def test_impossible_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **options)


def test_lengths_are_checked():
    model = masked_lm()
    with pytest.raises(ValueError, match=r"11 positions, got input_ids of shape \(12,\)"):
        model(np.ones(12, int))
    with pytest.raises(ValueError, match=r"attention_mask must have shape \[..., 7\], got \(1,\)"):
        model(TOKENS, np.ones(1))
    with pytest.raises(
        ValueError, match=r"token_type_ids must have shape \[..., 7\], got \(3, 1\)"
    ):
        model(TOKENS, MASK, TOKENS[:, :1])


def test_sites_are_called_as_in_hugging_face():
    model = masked_lm()
    with sj.scopes(model):
        names = set(sj.list_sites(lambda tokens: model(tokens, MASK[0])[1, 2])(TOKENS[0]).names)
    layer = "BertForMaskedLM/bert/encoder/layer/1"
    assert names >= {
        "BertForMaskedLM/bert/embeddings/word_embeddings",
        "BertForMaskedLM/bert/embeddings",
        f"{layer}:input",
        f"{layer}/attention/self/query",
        f"{layer}/attention/self",
        f"{layer}/attention/output/dense",
        f"{layer}/attention",
        f"{layer}/intermediate/gelu",
        f"{layer}/output/LayerNorm",
        layer,
        "BertForMaskedLM/bert/encoder",
        "BertForMaskedLM/cls/predictions/transform",
        "BertForMaskedLM/cls/predictions",
    }


def test_flow_through_the_branches_of_a_layer():
    model = masked_lm()
    parts = {name: f"*/{name}" for name in ("query", "key", "value")}

    def logit(x):
        return model.predict(model.bert.encoder(x)[1])[2]

    x = model.bert.embeddings(TOKENS[0])
    with sj.scopes(model):
        flow, default = (
            quick_jit(sj.branch_flow(logit, sj.AbsSumProduct(), "*/layer/*:input", branches))(x)
            for branches in (parts | {"skip": sj.REST}, None)
        )
    layers = [f"BertForMaskedLM/bert/encoder/layer/{n}:input" for n in range(2)]
    assert list(flow) == list(default) == layers
    for layer in layers:
        assert list(flow[layer]) == ["query", "key", "value", "skip"]
        assert list(default[layer]) == ["self/query", "self/key", "self/value", "output"]
    statistics = [sj.SumProduct(), sj.AbsSumProduct()]
    gradient, mass = quick_jit(sj.semiring_grad(logit, statistics))(x)
    close(gradient, quick_jit(jax.grad(logit))(x))
    np.testing.assert_allclose(sum(flow[layers[0]].values()), mass.sum(-1), rtol=1e-5)
    # The last layer's queries and skips are read at the predicted position alone.
    others = np.arange(7) != 1
    last = flow[layers[1]]
    for branch in ("query", "skip"):
        assert (last[branch][others] == 0).all() and last[branch][1] != 0
    assert all((last[branch] != 0).all() for branch in ("key", "value"))
