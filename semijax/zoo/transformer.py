"""A small BERT-like sequence classifier in Flax Linen, cut in two where one asks for gradients."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class SelfAttention(nn.Module):
    """Multi-head self-attention over all positions, without a mask."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float ``[..., length, width]`` to the same shape."""
        width = x.shape[-1]
        per_head = width // self.heads
        query = nn.DenseGeneral((self.heads, per_head), name="query")(x)
        key = nn.DenseGeneral((self.heads, per_head), name="key")(x)
        value = nn.DenseGeneral((self.heads, per_head), name="value")(x)
        scores = jnp.einsum("...qhd,...khd->...hqk", query, key) / per_head**0.5
        mixed = jnp.einsum("...hqk,...khd->...qhd", nn.softmax(scores), value)
        return nn.DenseGeneral(width, axis=(-2, -1), name="output")(mixed)


class TransformerLayer(nn.Module):
    """Attention and a feed-forward block, each with a skip connection and a layer norm after it."""

    heads: int
    intermediate: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float ``[..., length, width]`` to the same shape."""
        attended = SelfAttention(self.heads, name="attention")(x)
        x = nn.LayerNorm(name="attention_norm")(x + attended)
        hidden = nn.gelu(nn.Dense(self.intermediate, name="intermediate")(x), approximate=False)
        return nn.LayerNorm(name="output_norm")(x + nn.Dense(x.shape[-1], name="output")(hidden))


class SequenceClassifier(nn.Module):
    """A BERT-like classifier of token sequences: `embed`, then `classify`.

    The defaults are the model of Du et al. (2023), Section 5.1, without dropout. The two halves
    can be applied on their own, so that gradients are taken where the first one ends::

        embeddings = model.apply(variables, tokens, method="embed")
        logits = model.apply(variables, embeddings, method="classify")

    Attributes:
        vocabulary: the number of token ids.
        length: the longest sequence.
        width: the size of an embedding and of a hidden state.
        heads: attention heads per layer; must divide ``width``.
        intermediate: the width of the feed-forward block.
        layers: the number of transformer layers.
        classes: the number of labels.
    """

    vocabulary: int = 20
    length: int = 10
    width: int = 16
    heads: int = 2
    intermediate: int = 32
    layers: int = 1
    classes: int = 2

    def setup(self) -> None:
        """Declares the modules; their names are the scopes of the traced equations."""
        self.token_embedding = nn.Embed(self.vocabulary, self.width)
        self.position_embedding = nn.Embed(self.length, self.width)
        self.embedding_norm = nn.LayerNorm()
        self.layer = [TransformerLayer(self.heads, self.intermediate) for _ in range(self.layers)]
        self.pooler = nn.Dense(self.width)
        self.classifier = nn.Dense(self.classes)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens, int ``[..., length]``, to the layers' input ``[..., length, width]``."""
        positions = self.position_embedding(jnp.arange(tokens.shape[-1]))
        return self.embedding_norm(self.token_embedding(tokens) + positions)

    def classify(self, embeddings: jax.Array) -> jax.Array:
        """Maps embeddings, float ``[..., length, width]``, to logits ``[..., classes]``."""
        x = embeddings
        for layer in self.layer:
            x = layer(x)
        pooled = nn.tanh(self.pooler(x[..., 0, :]))
        return self.classifier(pooled)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens, int ``[..., length]``, to logits, float ``[..., classes]``."""
        return self.classify(self.embed(tokens))
