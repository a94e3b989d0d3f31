"""BERT in Flax NNX: an encoder of token sequences, with a masked-LM head or a classifier.

The architecture is that of Devlin, Chang, Lee and Toutanova 2019 (BERT: Pre-training of Deep
Bidirectional Transformers). Modules and attributes are called as in Hugging Face's implementation,
as are the tensors in its checkpoints, which ``load_checkpoint`` reads.

Everything is plain operations, each a node of the gradient's graph; only an activation that
JAX composes of several (``gelu``, ``silu``) is one node, by ``semijax.atomic``, as in the graph of
Du et al. (2023). In ``semijax.scopes(model)``, the gradient's flow is asked for by the names of the
modules.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from semijax import checks
from semijax.transforms import atomic


def gelu(x: jax.Array) -> jax.Array:
    """Multiply x by the normal distribution's cumulative function at x."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """Approximate `gelu` by a tanh."""
    return jax.nn.gelu(x, approximate=True)


Activation = Callable[[jax.Array], jax.Array]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": atomic(gelu),
    "gelu_new": atomic(gelu_tanh),
    "gelu_pytorch_tanh": atomic(gelu_tanh),
    "relu": jax.nn.relu,
    "silu": atomic(jax.nn.silu),
    "swish": atomic(jax.nn.silu),
    "tanh": jnp.tanh,
}
"""The activations, by Hugging Face's names."""


SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "num_labels",
    "type_vocab_size",
)
RATES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The sizes and options of a BERT, with Hugging Face's names and defaults, but no dropout.

    The defaults are the sizes of BERT-base.

    Attributes:
        vocab_size: the number of token ids.
        hidden_size: the size of an embedding and of a hidden state.
        num_hidden_layers: the number of transformer layers.
        num_attention_heads: attention heads per layer; must divide ``hidden_size``.
        intermediate_size: the width of the feed-forward block.
        max_position_embeddings: the longest sequence.
        num_labels: the classes of a ``BertForSequenceClassification``.
        hidden_act: the activation: ``"gelu"`` (by the error function), ``"gelu_new"`` or
            ``"gelu_pytorch_tanh"`` (by a tanh), ``"relu"``, ``"silu"`` or ``"swish"``, ``"tanh"``.
        hidden_dropout_prob: the rate of dropout on the embeddings, and on what each block adds.
        attention_probs_dropout_prob: the rate of dropout on the attention's weights.
        classifier_dropout: the rate of dropout on what is classified; ``hidden_dropout_prob`` for
            None.
        type_vocab_size: the number of token types.
        initializer_range: the standard deviation of a new model's weights.
        layer_norm_eps: what a layer norm adds to the variance.
        pad_token_id: the token whose embedding is 0 in a new model; None for no such token.
        tie_word_embeddings: the masked-LM head decodes with the word embeddings.
        dtype: of the parameters, and so of what is computed; ``"float32"``, ``"bfloat16"``, ….

    Raises:
        ValueError: if a size, a rate or an option is impossible.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    num_labels: int = 2
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    classifier_dropout: float | None = None
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in SIZES:
            checks.check_positive(name, getattr(self, name))
        for name in RATES:
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {rate!r}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide hidden_size, got {self.num_attention_heads} "
                f"and {self.hidden_size}."
            )
        if self.hidden_act not in ACTIVATIONS:
            known = ", ".join(map(repr, ACTIVATIONS))
            raise ValueError(f"hidden_act must be one of {known}, got {self.hidden_act!r}.")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id must be a token of 0 .. {self.vocab_size - 1}, got "
                f"{self.pad_token_id!r}."
            )
        if not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(f"dtype must be a floating point type, got {self.dtype!r}.")


def _linear(
    config: BertConfig, inputs: int, outputs: int, rngs: nnx.Rngs, use_bias: bool = True
) -> nnx.Linear:
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=use_bias,
        kernel_init=nnx.initializers.normal(config.initializer_range),
        param_dtype=config.dtype,
        rngs=rngs,
    )


def _embed(config: BertConfig, size: int, rngs: nnx.Rngs) -> nnx.Embed:
    return nnx.Embed(
        size,
        config.hidden_size,
        embedding_init=nnx.initializers.normal(config.initializer_range),
        param_dtype=config.dtype,
        rngs=rngs,
    )


def _layer_norm(config: BertConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(
        config.hidden_size, epsilon=config.layer_norm_eps, param_dtype=config.dtype, rngs=rngs
    )


def _dropout(rate: float, rngs: nnx.Rngs) -> nnx.Dropout:
    return nnx.Dropout(rate, deterministic=True, rngs=rngs)


class BertEmbeddings(nnx.Module):
    """The embeddings of words, positions and token types, summed and normalised."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.word_embeddings: nnx.Embed = _embed(config, config.vocab_size, rngs)
        self.position_embeddings: nnx.Embed = _embed(config, config.max_position_embeddings, rngs)
        self.token_type_embeddings: nnx.Embed = _embed(config, config.type_vocab_size, rngs)
        self.LayerNorm: nnx.LayerNorm = _layer_norm(config, rngs)
        self.dropout: nnx.Dropout = _dropout(config.hidden_dropout_prob, rngs)
        if config.pad_token_id is not None:
            words = self.word_embeddings.embedding
            words[...] = words[...].at[config.pad_token_id].set(0)

    def __call__(self, input_ids: ArrayLike, token_type_ids: ArrayLike | None = None) -> jax.Array:
        """Embed tokens.

        Args:
            input_ids: int ``[..., length]``.
            token_type_ids: int ``[..., length]``; all 0 by default.

        Returns:
            ``[..., length, hidden_size]``; NaN for a token that is not in the vocabulary.

        Raises:
            ValueError: if the sequences are longer than ``max_position_embeddings``.
        """
        tokens = jnp.asarray(input_ids)
        types = jnp.zeros_like(tokens) if token_type_ids is None else jnp.asarray(token_type_ids)
        length, longest = tokens.shape[-1], self.position_embeddings.num_embeddings
        if length > longest:
            raise ValueError(
                f"The model has embeddings for {longest} positions, got input_ids of shape "
                f"{tokens.shape}."
            )
        _check_length("token_type_ids", types, length)
        x = self.word_embeddings(tokens) + self.token_type_embeddings(types)
        return self.dropout(self.LayerNorm(x + self.position_embeddings(jnp.arange(length))))


def _check_length(name: str, given: jax.Array, length: int) -> None:
    """Raise for an array that would broadcast over the tokens."""
    if given.shape[-1:] != (length,):
        raise ValueError(f"{name} must have shape [..., {length}], got {given.shape}.")


class BertSelfAttention(nnx.Module):
    """Attention of each token to all that are not masked, in several heads."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.heads: int = config.num_attention_heads
        widths = config.hidden_size, config.hidden_size
        self.query: nnx.Linear = _linear(config, *widths, rngs)
        self.key: nnx.Linear = _linear(config, *widths, rngs)
        self.value: nnx.Linear = _linear(config, *widths, rngs)
        self.dropout: nnx.Dropout = _dropout(config.attention_probs_dropout_prob, rngs)
        # To be replaced where another graph is wanted.
        self.softmax: Callable[..., jax.Array] = jax.nn.softmax

    def __call__(self, x: jax.Array, attention_mask: ArrayLike | None = None) -> jax.Array:
        """Map ``[..., length, hidden_size]`` to the same shape; for the mask see `BertEncoder`."""
        length, hidden_size = x.shape[-2:]
        per_head = hidden_size // self.heads
        query, key, value = (
            linear(x).reshape(*x.shape[:-1], self.heads, per_head)
            for linear in (self.query, self.key, self.value)
        )
        scores = jnp.einsum("...qhd,...khd->...hqk", query, key) / math.sqrt(per_head)
        if attention_mask is not None:
            mask = jnp.asarray(attention_mask) != 0
            _check_length("attention_mask", mask, length)
            # Not -inf: its softmax, and so the derivative, is NaN where all tokens are masked.
            lowest = jnp.finfo(scores.dtype).min
            scores = jnp.where(mask[..., None, None, :], scores, lowest)
        weights = self.dropout(self.softmax(scores))
        return jnp.einsum("...hqk,...khd->...qhd", weights, value).reshape(x.shape)


class BertOutput(nnx.Module):
    """The end of a block: what it adds to its input, and the sum normalised."""

    def __init__(self, config: BertConfig, inputs: int, *, rngs: nnx.Rngs) -> None:
        self.dense: nnx.Linear = _linear(config, inputs, config.hidden_size, rngs)
        self.LayerNorm: nnx.LayerNorm = _layer_norm(config, rngs)
        self.dropout: nnx.Dropout = _dropout(config.hidden_dropout_prob, rngs)

    def __call__(self, hidden: jax.Array, x: jax.Array) -> jax.Array:
        """Map ``[..., inputs]`` and the block's input, ``[..., hidden_size]``, to the latter."""
        return self.LayerNorm(x + self.dropout(self.dense(hidden)))


class BertAttention(nnx.Module):
    """The attention block: attention, a skip connection, a layer norm."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.self: BertSelfAttention = BertSelfAttention(config, rngs=rngs)
        self.output: BertOutput = BertOutput(config, config.hidden_size, rngs=rngs)

    def __call__(self, x: jax.Array, attention_mask: ArrayLike | None = None) -> jax.Array:
        """Map ``[..., length, hidden_size]`` to the same shape; for the mask see `BertEncoder`."""
        return self.output(self.self(x, attention_mask), x)


class BertIntermediate(nnx.Module):
    """The hidden layer of the feed-forward block."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.dense: nnx.Linear = _linear(config, config.hidden_size, config.intermediate_size, rngs)
        self.activation: Activation = ACTIVATIONS[config.hidden_act]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``[..., hidden_size]`` to ``[..., intermediate_size]``."""
        return self.activation(self.dense(x))


class BertLayer(nnx.Module):
    """A transformer layer: the attention block, then the feed-forward block."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.attention: BertAttention = BertAttention(config, rngs=rngs)
        self.intermediate: BertIntermediate = BertIntermediate(config, rngs=rngs)
        self.output: BertOutput = BertOutput(config, config.intermediate_size, rngs=rngs)

    def __call__(self, x: jax.Array, attention_mask: ArrayLike | None = None) -> jax.Array:
        """Map ``[..., length, hidden_size]`` to the same shape; for the mask see `BertEncoder`."""
        x = self.attention(x, attention_mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nnx.Module):
    """The transformer layers."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.layer: nnx.List[BertLayer] = nnx.List(
            BertLayer(config, rngs=rngs) for _ in range(config.num_hidden_layers)
        )

    def __call__(self, x: jax.Array, attention_mask: ArrayLike | None = None) -> jax.Array:
        """Encode embeddings.

        Args:
            x: float ``[..., length, hidden_size]``.
            attention_mask: bool or 0/1, ``[..., length]``: no token attends to one whose mask is 0.
                Where all are 0, each attends to all alike.

        Returns:
            ``[..., length, hidden_size]``.
        """
        for layer in self.layer:
            x = layer(x, attention_mask)
        return x


class BertPooler(nnx.Module):
    """The first token's hidden state, through a tanh layer."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.dense: nnx.Linear = _linear(config, config.hidden_size, config.hidden_size, rngs)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map ``[..., length, hidden_size]`` to ``[..., hidden_size]``."""
        return jnp.tanh(self.dense(hidden[..., 0, :]))


class BertModel(nnx.Module):
    """The encoder, from tokens to hidden states.

    A new model is in evaluation mode: there is dropout after ``model.train()``, and none again
    after ``model.eval()``.

    Args:
        config: sizes and options.
        add_pooling_layer: with a ``pooler``, which maps hidden states, float
            ``[..., length, hidden_size]``, to ``[..., hidden_size]``.
        rngs: of the parameters, and of the dropout.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> config = zoo.BertConfig(11, 6, 1, 2, 7, 5)
        >>> model = zoo.BertModel(config, rngs=nnx.Rngs(0))
        >>> hidden = model(jnp.array([[1, 2, 3], [4, 5, 0]]), jnp.array([[1, 1, 1], [1, 1, 0]]))
        >>> hidden.shape, model.pooler(hidden).shape
        ((2, 3, 6), (2, 6))
    """

    def __init__(
        self, config: BertConfig, *, add_pooling_layer: bool = True, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        self.embeddings: BertEmbeddings = BertEmbeddings(config, rngs=rngs)
        self.encoder: BertEncoder = BertEncoder(config, rngs=rngs)
        if add_pooling_layer:
            self.pooler: BertPooler = BertPooler(config, rngs=rngs)

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> jax.Array:
        """Embed and encode tokens.

        Args:
            input_ids: int ``[..., length]``.
            attention_mask: bool or 0/1, ``[..., length]``: 0 for padding; all 1 by default.
            token_type_ids: int ``[..., length]``: which of two sentences; all 0 by default.

        Returns:
            The last layer's hidden states, ``[..., length, hidden_size]``.

        Raises:
            ValueError: if the sequences are longer than ``max_position_embeddings``, or the
                arguments' lengths differ.
        """
        return self.encoder(self.embeddings(input_ids, token_type_ids), attention_mask)


class BertPredictionHeadTransform(nnx.Module):
    """The hidden layer of the masked-LM head."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.dense: nnx.Linear = _linear(config, config.hidden_size, config.hidden_size, rngs)
        self.activation: Activation = ACTIVATIONS[config.hidden_act]
        self.LayerNorm: nnx.LayerNorm = _layer_norm(config, rngs)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map ``[..., hidden_size]`` to the same shape."""
        return self.LayerNorm(self.activation(self.dense(hidden)))


class BertLMPredictionHead(nnx.Module):
    """The masked-LM head: a hidden layer, and a decoder that may be the word embeddings."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.transform: BertPredictionHeadTransform = BertPredictionHeadTransform(config, rngs=rngs)
        self.bias: nnx.Param[jax.Array] = nnx.Param(jnp.zeros(config.vocab_size, config.dtype))
        self.tied: bool = config.tie_word_embeddings
        if not self.tied:
            self.decoder: nnx.Linear = _linear(
                config, config.hidden_size, config.vocab_size, rngs, use_bias=False
            )

    def __call__(self, hidden: jax.Array, words: jax.Array) -> jax.Array:
        """Map ``[..., hidden_size]``, with the word embeddings, to ``[..., vocab_size]``."""
        hidden = self.transform(hidden)
        return (hidden @ words.T if self.tied else self.decoder(hidden)) + self.bias[...]


class BertOnlyMLMHead(nnx.Module):
    """The level that Hugging Face's names have around a lone masked-LM head."""

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.predictions: BertLMPredictionHead = BertLMPredictionHead(config, rngs=rngs)

    def __call__(self, hidden: jax.Array, words: jax.Array) -> jax.Array:
        """Map ``[..., hidden_size]``, with the word embeddings, to ``[..., vocab_size]``."""
        return self.predictions(hidden, words)


class BertForMaskedLM(nnx.Module):
    """A masked language model: ``bert``, without a pooler, then ``predict``.

    A new model is in evaluation mode: there is dropout after ``model.train()``, and none again
    after ``model.eval()``.

    Args:
        config: sizes and options.
        rngs: of the parameters, and of the dropout.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> model = zoo.BertForMaskedLM(zoo.BertConfig(11, 6, 1, 2, 7, 5), rngs=nnx.Rngs(0))
        >>> tokens = jnp.array([3, 1, 4])
        >>> model(tokens).shape
        (3, 11)
        >>> x = model.bert.embeddings(tokens)  # the same in parts, and one position alone
        >>> bool(jnp.allclose(model.predict(model.bert.encoder(x)[1]), model(tokens)[1]))
        True
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.bert: BertModel = BertModel(config, add_pooling_layer=False, rngs=rngs)
        self.cls: BertOnlyMLMHead = BertOnlyMLMHead(config, rngs=rngs)

    def predict(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states ``[..., hidden_size]`` to logits ``[..., vocab_size]``."""
        return self.cls(hidden, self.bert.embeddings.word_embeddings.embedding[...])

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> jax.Array:
        """Predict a token at each position: logits ``[..., length, vocab_size]``.

        Arguments and errors are those of `BertModel`.
        """
        return self.predict(self.bert(input_ids, attention_mask, token_type_ids))


class BertForSequenceClassification(nnx.Module):
    """A classifier of sequences: ``bert``, then ``classify``.

    A new model is in evaluation mode: there is dropout after ``model.train()``, and none again
    after ``model.eval()``.

    Args:
        config: sizes and options.
        rngs: of the parameters, and of the dropout.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from semijax import zoo
        >>> config = zoo.BertConfig(11, 6, 1, 2, 7, 5, num_labels=3)
        >>> model = zoo.BertForSequenceClassification(config, rngs=nnx.Rngs(0))
        >>> tokens = jnp.array([3, 1, 4])
        >>> model(tokens).shape
        (3,)
        >>> x = model.bert.embeddings(tokens)  # the same in parts
        >>> bool(jnp.allclose(model.classify(model.bert.encoder(x)), model(tokens)))
        True
    """

    def __init__(self, config: BertConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.bert: BertModel = BertModel(config, rngs=rngs)
        rate = config.classifier_dropout
        self.dropout: nnx.Dropout = _dropout(
            config.hidden_dropout_prob if rate is None else rate, rngs
        )
        self.classifier: nnx.Linear = _linear(config, config.hidden_size, config.num_labels, rngs)

    def classify(self, hidden: jax.Array) -> jax.Array:
        """Map hidden states ``[..., length, hidden_size]`` to logits ``[..., num_labels]``."""
        return self.classifier(self.dropout(self.bert.pooler(hidden)))

    def __call__(
        self,
        input_ids: ArrayLike,
        attention_mask: ArrayLike | None = None,
        token_type_ids: ArrayLike | None = None,
    ) -> jax.Array:
        """Classify sequences by their first token: logits ``[..., num_labels]``.

        Arguments and errors are those of `BertModel`.
        """
        return self.classify(self.bert(input_ids, attention_mask, token_type_ids))
