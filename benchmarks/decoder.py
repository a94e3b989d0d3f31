"""A decoder of 1.1 billion parameters: what sweeps through it take, each in a process of its own.

``python -m benchmarks.decoder MaxProduct scan`` measures one sweep and prints JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import semijax as sj
from benchmarks.measure import peak_bytes, resident_bytes, run_times

LAYOUTS = ("unrolled", "scan")
"""One layer written after the other, or a ``lax.scan`` over the layers."""

QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "SumProduct": lambda f: sj.semiring_grad(f, sj.SumProduct()),
    "MaxProduct": lambda f: sj.semiring_grad(f, sj.MaxProduct()),
    "Entropy": lambda f: sj.semiring_grad(f, sj.Entropy()),
    "TopK(4)": lambda f: sj.semiring_grad(f, sj.TopK(4)),
    "branch_flow": lambda f: sj.branch_flow(f, sj.AbsSumProduct(), "*attention:input", traced=0),
}

ALL_QUESTIONS = (*QUESTIONS, "top_paths")


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A decoder with grouped-query attention and gated MLPs, in bfloat16, with random weights.

    Attributes:
        layout: one of ``LAYOUTS``.
        layers, width, heads, groups, hidden, words, tokens: its sizes.
    """

    layout: str = "unrolled"
    layers: int = 22
    width: int = 2048
    heads: int = 32
    groups: int = 4
    hidden: int = 5632
    words: int = 32_000
    tokens: int = 256

    def function(self, embeddings: jax.Array, weights: Any) -> jax.Array:
        """Return the difference of two words' logits after the last token."""
        x = embeddings
        if self.layout == "scan":
            x, _ = jax.lax.scan(lambda x, w: (self._layer(x, w), None), x, weights["layers"])
        else:
            for n, own in enumerate(weights["layers"]):
                with jax.named_scope(f"layer{n}"):
                    x = self._layer(x, own)
        logits = _norm(x[-1], weights["norm"]) @ weights["words"]
        return (logits[10] - logits[20]).astype(jnp.float32)

    def arguments(self) -> tuple[jax.Array, Any]:
        """Return embeddings, [token, width], and weights."""
        d, size = self.width, self.width // self.heads
        shapes = {
            **{"attention": (d,), "mlp": (d,), "query": (d, d), "out": (d, d)},
            **{name: (d, self.groups * size) for name in ("key", "value")},
            **{"gate": (d, self.hidden), "up": (d, self.hidden), "down": (self.hidden, d)},
        }
        keys = iter(jax.random.split(jax.random.key(0), 1000))

        def random(*shape: int) -> jax.Array:
            if len(shape) == 1:
                return jnp.ones(shape, jnp.bfloat16)
            return jax.random.normal(next(keys), shape, jnp.bfloat16) / math.sqrt(shape[-2])

        if self.layout == "scan":
            stacked = {n: (self.layers, *shape) for n, shape in shapes.items()}
            layers: Any = {n: random(*shape) for n, shape in stacked.items()}
            layers |= {n: jnp.ones(stacked[n], jnp.bfloat16) for n in ("attention", "mlp")}
        else:
            layers = [{n: random(*s) for n, s in shapes.items()} for _ in range(self.layers)]
        weights = {"layers": layers, "norm": random(d), "words": random(d, self.words)}
        return random(self.tokens, d) * math.sqrt(self.tokens), weights

    def _layer(self, x: jax.Array, w: Any) -> jax.Array:
        with jax.named_scope("attention"):
            x += self._attention(_norm(x, w["attention"]), w)
        with jax.named_scope("mlp"):
            hidden = _norm(x, w["mlp"])
            x += (jax.nn.silu(hidden @ w["gate"]) * (hidden @ w["up"])) @ w["down"]
        return x

    def _attention(self, hidden: jax.Array, w: Any) -> jax.Array:
        tokens, size = self.tokens, self.width // self.heads
        shared = self.heads // self.groups
        query = (hidden @ w["query"]).reshape(tokens, self.groups, shared, size)
        key, value = ((hidden @ w[n]).reshape(tokens, -1, size) for n in ("key", "value"))
        scores = jnp.einsum("tghk,sgk->ghts", query, key).astype(jnp.float32) / math.sqrt(size)
        scores = jnp.where(jnp.tri(tokens, dtype=bool), scores, -1e9)
        mixed = jnp.einsum("ghts,sgk->tghk", jax.nn.softmax(scores).astype(value.dtype), value)
        return mixed.reshape(tokens, -1) @ w["out"]


def _norm(x: jax.Array, scale: jax.Array) -> jax.Array:
    wide = x.astype(jnp.float32)
    size = jax.lax.rsqrt((wide * wide).mean(-1, keepdims=True) + 1e-5)
    return (wide * size).astype(x.dtype) * scale


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoder", description=__doc__)
    parser.add_argument("question", choices=ALL_QUESTIONS)
    parser.add_argument("layout", choices=LAYOUTS)
    parser.add_argument("--layers", type=int, default=Decoder.layers)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    model = Decoder(options.layout, options.layers)
    embeddings, weights = jax.block_until_ready(model.arguments())

    def compiled(f: Callable[..., Any]) -> tuple[Callable[[], Any], int]:
        program = jax.jit(f).lower(embeddings, weights).compile()
        temporary = program.memory_analysis().temp_size_in_bytes
        return lambda: jax.block_until_ready(program(embeddings, weights)), temporary

    before = resident_bytes()
    if options.question == "top_paths":
        function = sj.top_paths(lambda x: model.function(x, weights), 20)
        other, temporary = sj.semiring_grad(model.function, sj.AbsMaxProduct()), 0

        def run() -> Any:
            return function(embeddings)
    else:
        other = jax.grad(model.function)
        run, temporary = compiled(QUESTIONS[options.question](model.function))
    peak = before + peak_bytes(run)
    beside, of_other = compiled(other)
    times = run_times({"this": run, "other": beside}, options.repeats)
    found = {
        "before, GiB": before / 2**30,
        "peak, GiB": peak / 2**30,
        "seconds": times["this"],
        "ratio": times["this"] / times["other"],
    }
    if temporary:
        found["temporary ratio"] = temporary / of_other
        found["temporary, GiB"] = temporary / 2**30
    print(json.dumps(found))


if __name__ == "__main__":
    main()
