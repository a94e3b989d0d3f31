"""BERTs on disk in Hugging Face's format: a folder with a config and named tensors."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx

from semijax.zoo.bert import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel

CONFIG, TENSORS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"

FIXED: dict[str, Any] = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""The options that a config may give, each with the one value it may have here."""

OMITTED: dict[str, Any] = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
"""The values of options that a config leaves out, where ``BertConfig`` has other defaults."""

PRETRAINING = ("pooler.", "cls.predictions.", "cls.seq_relationship.", "embeddings.position_ids")
"""The beginnings of names of what pretraining leaves, without the ``bert.`` before them."""

ALIASES = {
    "LayerNorm.gamma": "LayerNorm.weight",  # in old checkpoints
    "LayerNorm.beta": "LayerNorm.bias",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
"""Other names of the same parameters."""

TIED = {"cls.predictions.decoder.weight": "embeddings.word_embeddings.weight"}
"""The names that ``tie_word_embeddings`` makes the same, too."""

Model = TypeVar("Model", BertModel, BertForMaskedLM, BertForSequenceClassification)
Place = tuple[Any, ...]
"""The place of a parameter in a model."""


def load_checkpoint(
    model_class: type[Model],
    folder: str | os.PathLike[str],
    *,
    dtype: Any = "float32",
    rngs: nnx.Rngs | None = None,
) -> Model:
    """Load a BERT from a folder with ``config.json`` and ``model.safetensors``.

    A checkpoint may hold what pretraining leaves even if the model has no use for it: the masked-LM
    and the next-sentence head, the pooler, and position ids. Anything else that the model doesn't
    have is an error, and so is anything that the checkpoint lacks.

    A model may be put together from loaded parts, such as a new classifier on a pretrained
    encoder::

        bert = zoo.load_checkpoint(zoo.BertModel, folder)
        config = dataclasses.replace(bert.config, num_labels=3)
        model = zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(0))
        model.bert = bert

    Args:
        model_class: ``BertModel``, ``BertForMaskedLM`` or ``BertForSequenceClassification``.
        folder: as Hugging Face's ``save_pretrained`` or ``save_checkpoint`` writes it.
        dtype: of the parameters; the tensors are converted.
        rngs: of the dropout; ``nnx.Rngs(0)`` by default.

    Returns:
        The model, in evaluation mode: there is dropout, at the config's rates, after
        ``model.train()``.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if the config asks for what the model doesn't know, or tensors are missing,
            unexpected, of other shapes, or differ though they are one parameter (tied). The message
            lists them all.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> model = zoo.BertForMaskedLM(zoo.BertConfig(11, 6, 1, 2, 7, 5), rngs=nnx.Rngs(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     zoo.save_checkpoint(model, folder)
        ...     same = zoo.load_checkpoint(zoo.BertForMaskedLM, folder)
        >>> tokens = jnp.array([3, 1, 4])
        >>> bool(jnp.array_equal(model(tokens), same(tokens)))
        True
    """
    folder = pathlib.Path(folder)
    for name in (CONFIG, TENSORS):
        if not (folder / name).is_file():
            raise FileNotFoundError(_what_is_missing(folder, name))
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config = _read_config(content, jnp.dtype(dtype).name)
    tensors = safetensors.numpy.load_file(folder / TENSORS)
    # Compared before anything is made: a wrong config may ask for more memory than there is.
    parameters = _parameters(nnx.eval_shape(lambda: model_class(config, rngs=nnx.Rngs(0))))
    names, problems = _match(parameters, tensors, config.tie_word_embeddings)
    if problems:
        saved = " or ".join(content.get("architectures") or ["an unknown class"])
        raise ValueError(
            f"The tensors of {folder / TENSORS} are not those of {model_class.__name__}:\n"
            + "\n".join(problems)
            + f"\nThe checkpoint was saved from {saved}. Load that, or BertModel, the encoder "
            "alone, and give it to a new model: model.bert = load_checkpoint(BertModel, folder)."
        )
    loaded = {
        place: jnp.asarray(_turned(place, tensors[names[place]]), dtype) for place in parameters
    }
    model = model_class(config, rngs=nnx.Rngs(0) if rngs is None else rngs)
    nnx.update(model, nnx.from_flat_state(loaded))
    return model


def save_checkpoint(
    model: BertModel | BertForMaskedLM | BertForSequenceClassification,
    folder: str | os.PathLike[str],
) -> None:
    """Write a BERT to a folder, as ``config.json`` and ``model.safetensors``.

    ``load_checkpoint`` reads it back, bit by bit; so does the ``from_pretrained`` of Hugging Face's
    class of the same name. Whenever the writing is killed, the folder holds the old checkpoint, the
    new one, or none that loads.

    Args:
        model: what to write, parameters and config; not the state of the dropout.
        folder: made if it isn't there; a checkpoint in it is replaced.

    Example:
        >>> import pathlib, tempfile
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> config = zoo.BertConfig(vocab_size=11, intermediate_size=8, **sizes)
        >>> model = zoo.BertForMaskedLM(config, rngs=nnx.Rngs(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     zoo.save_checkpoint(model, folder)
        ...     sorted(path.name for path in pathlib.Path(folder).iterdir())
        ['config.json', 'model.safetensors']
    """
    config = {"architectures": [type(model).__name__], "model_type": FIXED["model_type"]}
    config |= dataclasses.asdict(model.config)
    tensors = {
        _tensor_name(place): np.ascontiguousarray(_turned(place, np.asarray(parameter[...])))
        for place, parameter in _parameters(model).items()
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    new_config, new_tensors = (folder / f"{name}.part" for name in (CONFIG, TENSORS))
    new_config.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    # Hugging Face reads no file that doesn't say whose layout it has.
    safetensors.numpy.save_file(tensors, new_tensors, metadata={"format": "pt"})
    # Never one checkpoint's config beside another's tensors.
    (folder / CONFIG).unlink(missing_ok=True)
    new_tensors.replace(folder / TENSORS)
    new_config.replace(folder / CONFIG)


def _what_is_missing(folder: pathlib.Path, name: str) -> str:
    message = (
        f"There is no {name} in {folder}. A checkpoint is a folder with {CONFIG} and {TENSORS}, as "
        "Hugging Face's save_pretrained writes it."
    )
    if name != TENSORS or not (folder / PICKLED).is_file():
        return message
    # Cloned, as tensors that share their memory are not saved; contiguous, as some are transposed.
    return f"""{message} There is a {PICKLED}; to convert it, where PyTorch is installed:

import safetensors.torch, torch
tensors = torch.load({str(folder / PICKLED)!r}, map_location="cpu", weights_only=True)
tensors = {{name: tensor.contiguous().clone() for name, tensor in tensors.items()}}
safetensors.torch.save_file(tensors, {str(folder / TENSORS)!r})
"""


def _read_config(content: Mapping[str, Any], dtype: str) -> BertConfig:
    fixed = {name: content.get(name, value) for name, value in FIXED.items()}
    if fixed != FIXED:
        raise ValueError(f"Expected a config with {FIXED}, got {fixed}.")
    names = {field.name for field in dataclasses.fields(BertConfig)}
    known = OMITTED | {name: content[name] for name in names & set(content)}
    known["dtype"] = dtype
    if content.get("id2label"):  # how Hugging Face writes the number of labels
        known["num_labels"] = len(content["id2label"])
    return BertConfig(**known)


def _parameters(model: nnx.Module) -> dict[Place, nnx.Param]:
    return dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))


def _tensor_name(place: Place) -> str:
    """Return the name of a parameter in the checkpoint of its model."""
    *modules, leaf = map(str, place)
    return ".".join([*modules, "bias" if leaf == "bias" else "weight"])


def _turned(place: Place, array: np.ndarray) -> np.ndarray:
    """Turn a parameter into its tensor, or back: PyTorch's matrices are ``[outputs, inputs]``."""
    return array.T if place[-1] == "kernel" else array


def _one_name(name: str, tied: bool) -> str:
    """Return a parameter's name in all checkpoints: an encoder's has no ``bert.`` before it."""
    name = name.removeprefix("bert.")
    for alias, of in (ALIASES | TIED if tied else ALIASES).items():
        name = name.replace(alias, of)
    return name


def _match(
    parameters: Mapping[Place, nnx.Param], tensors: Mapping[str, np.ndarray], tied: bool
) -> tuple[dict[Place, str], list[str]]:
    """Find the name of each parameter's tensor, and all that is wrong with them."""
    places = {_one_name(_tensor_name(place), tied): place for place in parameters}
    found: dict[Place, str] = {}
    unexpected, shapes, different = [], [], []
    for name, tensor in tensors.items():
        one = _one_name(name, tied)
        if one not in places:
            if not one.startswith(PRETRAINING):
                unexpected.append(name)
            continue
        place = places[one]
        first = found.setdefault(place, name)
        shape = parameters[place].shape
        if _turned(place, tensor).shape != shape:
            expected = shape[::-1] if place[-1] == "kernel" else shape
            shapes.append(f"{name} {tensor.shape} instead of {expected}")
        elif not np.array_equal(tensor, tensors[first]):
            different.append(f"{first} and {name}")
    bare = not any(name.startswith("bert.") for name in tensors)
    missing = [
        one if bare or one.startswith(("cls.", "classifier.")) else f"bert.{one}"
        for one, place in places.items()
        if place not in found
    ]
    wrong = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": shapes,
        "different, though tied": different,
    }
    return found, [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
