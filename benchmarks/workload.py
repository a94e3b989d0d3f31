"""The workload: the gradient of BERT's masked-word prediction, and the contractions in it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

import semijax as sj

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # transformers announces that its Flax models will go
    from transformers import BertConfig
    from transformers.models.bert import modeling_flax_bert as bert

VOCABULARY, WIDTH, INTERMEDIATE = 30_522, 512, 2048


class MaskedWord(nn.Module):
    """BERT from the embeddings of its tokens to the logits of every word at every position."""

    layers: int
    width: int
    checkpoint: bool = False

    @nn.compact
    def __call__(self, embeddings: jax.Array) -> jax.Array:
        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            intermediate_size=4 * self.width,
        )
        everything = jnp.ones(embeddings.shape[:2])
        encoder = bert.FlaxBertEncoder(config, gradient_checkpointing=self.checkpoint)
        hidden = encoder(embeddings, everything, None)[0]
        return bert.FlaxBertLMPredictionHead(config)(hidden)


@dataclasses.dataclass(frozen=True)
class Workload:
    """A scalar function of the embeddings of a sentence and the parameters, with arguments.

    ``batch`` sentences are differentiated at once, by ``vmap``, with the same parameters.
    """

    layers: int = 6
    tokens: int = 16
    batch: int = 1
    width: int = WIDTH
    dtype: str = "float32"
    checkpoint: bool = False

    @property
    def name(self) -> str:
        width = "" if self.width == WIDTH else f", width {self.width}"
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        in_checkpoints = ", in jax.checkpoint" if self.checkpoint else ""
        sizes = f"{self.layers} layers, {self.tokens} tokens, batch {self.batch}"
        return f"{sizes}{width}{dtype}{in_checkpoints}"

    def function(self, embeddings: jax.Array, params: Any) -> jax.Array:
        """Return the difference of two words' log-probabilities at the middle position."""
        logits = self._model().apply(params, embeddings[None])[0, self.tokens // 2]
        log_probabilities = jax.nn.log_softmax(logits)
        return log_probabilities[1000] - log_probabilities[2000]

    def with_entropy(self, embeddings: jax.Array, params: Any) -> jax.Array:
        """Return the same and, as a penalty, the entropy of its gradient."""
        both = sj.semiring_value_and_grad(self.function, sj.Entropy())
        value, entropies = both(embeddings, params)
        return value + 0.1 * entropies.sum()

    def arguments(self) -> tuple[jax.Array, Any]:
        keys = jax.random.split(jax.random.key(0))
        one = (self.tokens, self.width)
        embeddings = jax.random.normal(keys[0], one if self.batch == 1 else (self.batch, *one))
        found = embeddings, jax.jit(self._model().init)(keys[1], jnp.zeros((1, *one)))
        return jax.tree.map(lambda leaf: leaf.astype(self.dtype), found)

    def _model(self) -> MaskedWord:
        return MaskedWord(self.layers, self.width, self.checkpoint)

    def batched(self, gradient: Callable[..., Any]) -> Callable[..., Any]:
        return gradient if self.batch == 1 else jax.vmap(gradient, (0, None))


CONTRACTIONS = [(WIDTH, WIDTH, tokens) for tokens in (16, 64, 128, 1024)] + [
    (rows, depth, tokens)
    for rows, depth in ((WIDTH, INTERMEDIATE), (INTERMEDIATE, WIDTH))
    for tokens in (16, 128, 1024)
]
"""The (rows, contracted, columns) of pulls through BERT's dense layers; 1024 is 8 × 128 tokens."""
