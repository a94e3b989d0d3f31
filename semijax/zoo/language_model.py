"""A small LSTM language model in Flax NNX, whose gates and cells have names."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from semijax import checks


class Gate(nnx.Module):
    """A layer of an LSTM's cell: an activation of an affine function of the input and the state.

    Attributes:
        input: the matrix for the input, without a bias.
        state: the matrix for the state of the time step before, and the bias.
    """

    def __init__(
        self, width: int, activation: Callable[[jax.Array], jax.Array], *, rngs: nnx.Rngs
    ) -> None:
        self.input: nnx.Linear = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.state: nnx.Linear = nnx.Linear(width, width, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array, state: jax.Array) -> jax.Array:
        """Map two arrays, float ``[..., width]``, to one of the same shape."""
        return self.activation(self.input(x) + self.state(state))


class LSTMCell(nnx.Module):
    """One time step of a long short-term memory (LSTM).

    What it computes outside of its gates has the names ``cell`` and ``hidden``.

    Source: Hochreiter and Schmidhuber 1997; the forget gate is that of Gers et al. 2000.

    Attributes:
        input_gate: how much of the candidate enters the cell.
        forget_gate: how much of the cell is kept.
        candidate: what may enter the cell.
        output_gate: how much of the cell is shown.
    """

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.input_gate: Gate = Gate(width, jax.nn.sigmoid, rngs=rngs)
        self.forget_gate: Gate = Gate(width, jax.nn.sigmoid, rngs=rngs)
        self.candidate: Gate = Gate(width, jnp.tanh, rngs=rngs)
        self.output_gate: Gate = Gate(width, jax.nn.sigmoid, rngs=rngs)

    def __call__(
        self, carry: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        """Map the old cell and state, and the input, to the new ones, and the new state again.

        All are float ``[..., width]``.
        """
        cell, state = carry
        keep, write = self.forget_gate(x, state), self.input_gate(x, state)
        candidate, show = self.candidate(x, state), self.output_gate(x, state)
        with jax.named_scope("cell"):
            cell = keep * cell + write * candidate
        with jax.named_scope("hidden"):
            state = show * jnp.tanh(cell)
        return (cell, state), state


class LSTMLanguageModel(nnx.Module):
    """A model that predicts each next word of a text: an embedding, layers of LSTM, a linear head.

    The layers run in ``jax.lax.scan``. In ``semijax.scopes(model)`` the modules are called
    ``"LSTMLanguageModel/embedding"``, ``"LSTMLanguageModel/layers/0/forget_gate/state"``,
    ``"LSTMLanguageModel/layers/0/cell"``, ``"LSTMLanguageModel/head"``.

    Args:
        vocabulary: the number of token ids.
        width: the size of an embedding, and of each layer's cell and state.
        layers: how many layers of LSTM there are.
        rngs: the keys of the parameters.

    Raises:
        ValueError: if a size is less than 1.

    Example:
        >>> import jax.numpy as jnp, semijax as sj
        >>> from flax import nnx
        >>> from semijax.zoo.language_model import LSTMLanguageModel
        >>> model = LSTMLanguageModel(11, 5, rngs=nnx.Rngs(0))
        >>> embedded = model.embedding(jnp.array([2, 3, 5]))
        >>> with sj.scopes(model):
        ...     paths = sj.top_paths(lambda embedded: model.predict(embedded)[-1, 7])(embedded)
        >>> paths[0].nodes[-3].scope
        'LSTMLanguageModel/head'
    """

    def __init__(self, vocabulary: int, width: int, layers: int = 1, *, rngs: nnx.Rngs) -> None:
        sizes = {"vocabulary": vocabulary, "width": width, "layers": layers}
        for name, size in sizes.items():
            checks.check_positive(name, size)
        self.embedding: nnx.Embed = nnx.Embed(vocabulary, width, rngs=rngs)
        self.layers: nnx.List[LSTMCell] = nnx.List(
            [LSTMCell(width, rngs=rngs) for _ in range(layers)]
        )
        self.head: nnx.Linear = nnx.Linear(width, vocabulary, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Map tokens, int ``[..., length]``, to logits, float ``[..., length, vocabulary]``."""
        return self.predict(self.embedding(tokens))

    def predict(self, embedded: jax.Array) -> jax.Array:
        """Map embeddings, float ``[..., length, width]``, to logits of each next token.

        Those at a position, float ``[..., length, vocabulary]``, depend on no later position.
        """
        x = jnp.moveaxis(embedded, -2, 0)
        for layer in self.layers:
            start = jnp.zeros(x.shape[1:], x.dtype)
            # A new function each time: scan remembers what it has traced, with its parameters.
            _, x = jax.lax.scan(lambda carry, x, layer=layer: layer(carry, x), (start, start), x)
        return self.head(jnp.moveaxis(x, 0, -2))


def next_word_loss(model: LSTMLanguageModel, tokens: jax.Array, *, padding: int = 0) -> jax.Array:
    """Compute the mean cross-entropy of each next token, in nats: a loss for ``train``.

    Args:
        model: maps tokens to the logits of the next ones.
        tokens: int ``[..., length]``, each text with its first token, at least one more, and its
            padding.
        padding: the token that fills texts up at their end; it is not predicted.

    Returns:
        The mean over all tokens but the first ones and the padding, a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from semijax import zoo
        >>> uniform = lambda tokens: jnp.zeros((*tokens.shape, 8))
        >>> print(jnp.exp(zoo.next_word_loss(uniform, jnp.array([[1, 5, 3, 0, 0]]))).round(3))
        8.0
    """
    following = tokens[..., 1:]
    logits = model(tokens[..., :-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, following)
    return jnp.mean(losses, where=following != padding)
