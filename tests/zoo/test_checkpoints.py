"""Checkpoints: PyTorch's models come in and go out unchanged, and what doesn't fit is named."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from semijax import zoo

SMALL = zoo.BertConfig(
    vocab_size=23,
    hidden_size=10,
    num_hidden_layers=1,
    num_attention_heads=5,
    intermediate_size=7,
    max_position_embeddings=11,
)
CONFIGS = {
    "two layers": {"num_hidden_layers": 2, "hidden_dropout_prob": 0.1},
    "tanh, three token types": {"num_attention_heads": 2, "hidden_act": "tanh"}
    | {"type_vocab_size": 3, "pad_token_id": None},
    "untied, three layers": {"num_hidden_layers": 3, "hidden_act": "gelu_new"}
    | {"num_attention_heads": 1, "layer_norm_eps": 1e-3, "tie_word_embeddings": False},
}
MODELS = (zoo.BertModel, zoo.BertForMaskedLM, zoo.BertForSequenceClassification)
TOKENS = np.random.default_rng(0).integers(1, 23, (3, 7))
MASK = np.arange(7) < np.array([[7], [5], [1]])
TYPES = TOKENS % 2


def close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def torch_model(name, **options):
    """A random model of Hugging Face's, the biases and the norms' scales too."""
    torch = pytest.importorskip("torch", reason="installed for Python 3.11 only")
    import transformers

    config = transformers.BertConfig(**(dataclasses.asdict(SMALL) | options))
    model = getattr(transformers, name)(config).eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def run_torch(model):
    import torch

    with torch.no_grad():
        output = model(*map(torch.tensor, (TOKENS, MASK, TYPES)))
    return {name: tensor.numpy() for name, tensor in output.items()}


def new(model_class, config=SMALL):
    """A model without any zeros, so that each tensor has its own numbers."""
    model = model_class(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    for _, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        parameter[...] = jnp.asarray(rng.normal(0, 0.5, parameter.shape), parameter.dtype)
    return model


def same_parameters(a, b):
    jax.tree.map(np.testing.assert_array_equal, *(nnx.state(m, nnx.Param) for m in (a, b)))


def saved(folder, model_class, config=SMALL):
    """The tensors of a saved model, to be changed, and what writes them back."""
    model = new(model_class, config)
    zoo.save_checkpoint(model, folder)
    path = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    return model, tensors, lambda: safetensors.numpy.save_file(tensors, path)


def change_config(folder, **options):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_masked_lm_of_pytorch(options, tmp_path):
    theirs = torch_model("BertForMaskedLM", **options)
    theirs.save_pretrained(tmp_path)
    ours = zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path)
    assert ours.config == dataclasses.replace(SMALL, **options)
    logits = run_torch(theirs)["logits"]
    assert logits.std() > 0.5
    close(ours(TOKENS, MASK, TYPES), logits)


def test_classifier_and_encoder_of_pytorch(tmp_path):
    theirs = torch_model("BertForSequenceClassification", num_labels=3)
    theirs.save_pretrained(tmp_path)
    ours = zoo.load_checkpoint(zoo.BertForSequenceClassification, tmp_path)
    assert ours.config.num_labels == 3
    close(ours(TOKENS, MASK, TYPES), run_torch(theirs)["logits"])

    theirs = torch_model("BertModel")
    theirs.save_pretrained(tmp_path)
    ours, expected = zoo.load_checkpoint(zoo.BertModel, tmp_path), run_torch(theirs)
    hidden = ours(TOKENS, MASK, TYPES)
    close(hidden, expected["last_hidden_state"])
    close(ours.pooler(hidden), expected["pooler_output"])


@pytest.mark.parametrize("tied", [True, False])
def test_pretraining_checkpoint_of_pytorch(tied, tmp_path):
    theirs = torch_model("BertForPreTraining", tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path)
    ours = zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path)
    close(ours(TOKENS, MASK, TYPES), run_torch(theirs)["prediction_logits"])
    bert = zoo.load_checkpoint(zoo.BertModel, tmp_path)
    close(bert(TOKENS, MASK, TYPES), ours.bert(TOKENS, MASK, TYPES))


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("tied", [True, False])
def test_pytorch_reads_what_is_saved(model_class, tied, tmp_path):
    pytest.importorskip("torch", reason="installed for Python 3.11 only")
    import transformers

    config = dataclasses.replace(SMALL, num_labels=3, tie_word_embeddings=tied)
    ours = new(model_class, config)
    zoo.save_checkpoint(ours, tmp_path)
    theirs, info = getattr(transformers, model_class.__name__).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values())
    for name in ("num_labels", "tie_word_embeddings", "hidden_dropout_prob"):
        assert getattr(theirs.config, name) == getattr(config, name)
    close(ours(TOKENS, MASK, TYPES), next(iter(run_torch(theirs).values())))
    theirs.save_pretrained(tmp_path / "theirs")
    names = [
        set(safetensors.numpy.load_file(folder / "model.safetensors"))
        for folder in (tmp_path, tmp_path / "theirs")
    ]
    assert names[0] == names[1]


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_model_comes_back_bit_by_bit(model_class, dtype, tmp_path):
    config = dataclasses.replace(
        SMALL, num_labels=3, dtype=dtype, classifier_dropout=0.3, pad_token_id=None
    )
    model = new(model_class, config)
    folder = tmp_path / "new" / "folder"
    zoo.save_checkpoint(model, folder)
    loaded = zoo.load_checkpoint(model_class, str(folder), dtype=dtype)
    assert loaded.config == config
    same_parameters(loaded, model)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert not any(
        module.deterministic is False
        for _, module in nnx.iter_modules(loaded)
        if isinstance(module, nnx.Dropout)
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_tensors_are_converted(dtype, tmp_path):
    _, tensors, write = saved(tmp_path, zoo.BertModel)
    tensors |= {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    write()
    loaded = zoo.load_checkpoint(zoo.BertModel, tmp_path)
    kernel = loaded.encoder.layer[0].attention.self.query.kernel[...]
    assert kernel.dtype == jnp.float32
    expected = tensors["encoder.layer.0.attention.self.query.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(kernel, expected)
    half = zoo.load_checkpoint(zoo.BertModel, tmp_path, dtype=jnp.bfloat16)
    assert half.config.dtype == "bfloat16"
    assert half.embeddings.LayerNorm.scale[...].dtype == jnp.bfloat16


def test_other_names_of_the_same(tmp_path):
    model, tensors, write = saved(tmp_path, zoo.BertForMaskedLM)
    for old, name in (("gamma", "weight"), ("beta", "bias")):
        for full in [name for name in tensors if "LayerNorm" in name]:
            if full.endswith(name):
                tensors[full.removesuffix(name) + old] = tensors.pop(full)
    tensors["bert.embeddings.position_ids"] = np.arange(11)[None]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    tensors["cls.seq_relationship.weight"] = np.zeros((2, 10), np.float32)
    write()
    same_parameters(zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path), model)
    # A file may have the decoder's name for what is tied, alone.
    del tensors["bert.embeddings.word_embeddings.weight"], tensors["cls.predictions.bias"]
    write()
    same_parameters(zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path), model)


def test_the_encoder_of_any_checkpoint(tmp_path):
    model, tensors, write = saved(tmp_path, zoo.BertModel)
    same_parameters(zoo.load_checkpoint(zoo.BertModel, tmp_path), model)
    tensors |= {f"bert.{name}": tensors.pop(name) for name in list(tensors)}
    write()
    bert = zoo.load_checkpoint(zoo.BertModel, tmp_path)
    same_parameters(bert, model)
    # A new classifier on it, as the docstring has it.
    config = dataclasses.replace(bert.config, num_labels=5)
    classifier = zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(0))
    classifier.bert = bert
    zoo.save_checkpoint(classifier, tmp_path)
    loaded = zoo.load_checkpoint(zoo.BertForSequenceClassification, tmp_path)
    same_parameters(loaded, classifier)
    same_parameters(loaded.bert, model)


def message(folder, model_class):
    with pytest.raises(ValueError) as error:
        zoo.load_checkpoint(model_class, folder)
    return str(error.value).splitlines()


def test_all_that_does_not_fit_is_listed(tmp_path):
    _, tensors, write = saved(tmp_path, zoo.BertForMaskedLM)
    del tensors["bert.encoder.layer.0.output.LayerNorm.bias"]
    del tensors["cls.predictions.bias"]
    tensors["bert.encoder.layer.1.output.dense.bias"] = np.zeros(10)
    tensors["qa_outputs.bias"] = np.zeros(2)
    tensors["bert.encoder.layer.0.intermediate.dense.weight"] = np.zeros((10, 7))
    tensors["cls.predictions.decoder.weight"] = np.zeros((23, 10), np.float32)
    write()
    first, missing, unexpected, shapes, different, hint = message(tmp_path, zoo.BertForMaskedLM)
    assert first.endswith("model.safetensors are not those of BertForMaskedLM:")
    assert missing == ("missing: bert.encoder.layer.0.output.LayerNorm.bias, cls.predictions.bias")
    assert unexpected == "unexpected: bert.encoder.layer.1.output.dense.bias, qa_outputs.bias"
    assert shapes == (
        "of another shape: bert.encoder.layer.0.intermediate.dense.weight (10, 7) "
        "instead of (7, 10)"
    )
    assert different == (
        "different, though tied: bert.embeddings.word_embeddings.weight and "
        "cls.predictions.decoder.weight"
    )
    assert "saved from BertForMaskedLM" in hint


def test_heads_that_are_not_there_are_missing(tmp_path):
    saved(tmp_path, zoo.BertForMaskedLM)
    _, missing, hint = message(tmp_path, zoo.BertForSequenceClassification)
    assert missing == (
        "missing: bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias, "
        "classifier.weight"
    )
    assert "model.bert = load_checkpoint(BertModel, folder)" in hint
    saved(tmp_path, zoo.BertForSequenceClassification)
    _, missing, unexpected, _ = message(tmp_path, zoo.BertForMaskedLM)
    assert "cls.predictions.transform.dense.weight" in missing
    assert unexpected == "unexpected: classifier.bias, classifier.weight"
    _, tensors, write = saved(tmp_path, zoo.BertModel)
    del tensors["pooler.dense.bias"]
    write()
    assert message(tmp_path, zoo.BertModel)[1] == "missing: pooler.dense.bias"


def test_an_untied_decoder_is_no_alias(tmp_path):
    config = dataclasses.replace(SMALL, tie_word_embeddings=False)
    _, tensors, write = saved(tmp_path, zoo.BertForMaskedLM, config)
    del tensors["cls.predictions.decoder.weight"]
    write()
    missing = message(tmp_path, zoo.BertForMaskedLM)[1]
    assert missing == "missing: cls.predictions.decoder.weight"


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ({"model_type": "roberta"}, "'model_type': 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "'position_embedding_type': 'relative_key'"),
        ({"is_decoder": True}, "'is_decoder': True"),
        ({"add_cross_attention": True}, "'add_cross_attention': True"),
        ({"hidden_act": "quick_gelu"}, "hidden_act must be one of"),
    ],
)
def test_options_that_are_not_there_are_refused(option, shown, tmp_path):
    saved(tmp_path, zoo.BertModel)
    change_config(tmp_path, **option)
    with pytest.raises(ValueError, match=shown):
        zoo.load_checkpoint(zoo.BertModel, tmp_path)


def test_what_a_config_omits_and_adds(tmp_path):
    saved(tmp_path, zoo.BertModel)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    for name in ("model_type", "architectures", "hidden_dropout_prob", "tie_word_embeddings"):
        del content[name]
    content |= {"id2label": {"0": "a", "1": "b", "2": "c"}, "use_cache": True, "dtype": None}
    path.write_text(json.dumps(content))
    expected = dataclasses.replace(SMALL, num_labels=3, hidden_dropout_prob=0.1)
    assert zoo.load_checkpoint(zoo.BertModel, tmp_path).config == expected


def test_dropout_of_a_loaded_model(tmp_path):
    saved(tmp_path, zoo.BertModel)
    change_config(tmp_path, hidden_dropout_prob=0.5)
    outputs = []
    for seed in (0, 0, 1):
        model = zoo.load_checkpoint(zoo.BertModel, tmp_path, rngs=nnx.Rngs(seed))
        model.train()
        outputs.append(model.embeddings(TOKENS))
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert (outputs[0] != outputs[2]).any()


def test_files_that_are_not_there(tmp_path):
    def missing(name):
        return pytest.raises(FileNotFoundError, match=f"There is no {name} in .*save_pretrained")

    with missing("config.json"):
        zoo.load_checkpoint(zoo.BertModel, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with missing("model.safetensors"):
        zoo.load_checkpoint(zoo.BertModel, tmp_path)


def test_the_recipe_for_a_pickled_checkpoint_works(tmp_path):
    theirs = torch_model("BertForPreTraining")
    import torch

    theirs.config.save_pretrained(tmp_path)
    tensors = theirs.state_dict()  # tied tensors share their memory
    transposed = tensors["bert.pooler.dense.weight"].T.contiguous().T
    torch.save(tensors | {"bert.pooler.dense.weight": transposed}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="to convert it, where PyTorch is installed") as e:
        zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path)
    exec(str(e.value).partition("\n\n")[2])
    bert = zoo.load_checkpoint(zoo.BertModel, tmp_path)
    np.testing.assert_array_equal(bert.pooler.dense.kernel[...], transposed.numpy().T)
    ours = zoo.load_checkpoint(zoo.BertForMaskedLM, tmp_path)
    close(ours(TOKENS, MASK, TYPES), run_torch(theirs)["prediction_logits"])


@pytest.mark.parametrize("step", range(4))
def test_a_killed_save_leaves_no_half_checkpoint(step, tmp_path, monkeypatch):
    old = new(zoo.BertModel)
    zoo.save_checkpoint(old, tmp_path)
    config = dataclasses.replace(SMALL, hidden_act="relu")
    other = zoo.BertModel(config, rngs=nnx.Rngs(1))
    steps = []

    def counted(original):
        def run(*args, **kwargs):
            if len(steps) == step:
                raise KeyboardInterrupt
            steps.append(original)
            return original(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.numpy, "save_file", counted(safetensors.numpy.save_file))
        for name in ("unlink", "replace"):
            patch.setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
        with pytest.raises(KeyboardInterrupt):
            zoo.save_checkpoint(other, tmp_path)
    if step < 2:
        loaded = zoo.load_checkpoint(zoo.BertModel, tmp_path)
        assert loaded.config == old.config
        same_parameters(loaded, old)
    else:
        with pytest.raises(FileNotFoundError, match=r"config\.json"):
            zoo.load_checkpoint(zoo.BertModel, tmp_path)
    zoo.save_checkpoint(other, tmp_path)
    loaded = zoo.load_checkpoint(zoo.BertModel, tmp_path)
    assert loaded.config == config
    same_parameters(loaded, other)
    assert not list(tmp_path.glob("*.part"))


def test_a_config_that_asks_for_too_much_is_refused_before_anything_is_made(tmp_path):
    zoo.save_checkpoint(zoo.BertModel(SMALL, rngs=nnx.Rngs(0)), tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 10**9}))
    with pytest.raises(ValueError, match=r"of another shape: .*\(1000000000, 10\)"):
        zoo.load_checkpoint(zoo.BertModel, tmp_path)
