"""Layers of other models: convolutions, blocks of them, and a complex state-space model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

CHANNELS, SIDE = 32, 32
STATES, STEPS = 64, 128


class ResNetBlock(nn.Module):
    """Two 3 × 3 convolutions with batch statistics that are constants, and a skip connection."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(_normalised(nn.Conv(CHANNELS, (3, 3), use_bias=False)(x)))
        return nn.relu(x + _normalised(nn.Conv(CHANNELS, (3, 3), use_bias=False)(y)))


class ConvNeXtBlock(nn.Module):
    """A 7 × 7 depthwise convolution, a layer norm, an inverted bottleneck and a skip connection."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.LayerNorm()(nn.Conv(CHANNELS, (7, 7), feature_group_count=CHANNELS)(x))
        return x + nn.Dense(CHANNELS)(nn.gelu(nn.Dense(4 * CHANNELS)(y)))


class StateSpace(nn.Module):
    """A diagonal state-space layer: xₜ = Λ xₜ₋₁ + B uₜ in complex numbers, yₜ = Re(C xₜ) + D uₜ.

    Source: Smith, Warrington and Linderman 2023 (S5), by ``jax.lax.associative_scan``.
    """

    @nn.compact
    def __call__(self, u: jax.Array) -> jax.Array:
        width = u.shape[1]
        into = self._complex("into", (STATES, width))
        out = self._complex("out", (width, STATES))
        decay = self.param("decay", nn.initializers.uniform(1.0), (STATES,))
        angle = self.param("angle", nn.initializers.uniform(3.0), (STATES,))
        step = jnp.exp(-decay + 1j * angle)

        def combine(first: Any, second: Any) -> Any:
            return first[0] * second[0], second[0] * first[1] + second[1]

        steps = jnp.broadcast_to(step, (len(u), STATES))
        _, states = jax.lax.associative_scan(combine, (steps, u @ into.T))
        return nn.gelu((states @ out.T).real + self.param("skip", nn.initializers.ones, ()) * u)

    def _complex(self, name: str, shape: tuple[int, ...]) -> jax.Array:
        parts = (f"{name}_real", f"{name}_imaginary")
        real, imaginary = (self.param(part, nn.initializers.normal(0.1), shape) for part in parts)
        return real + 1j * imaginary


def _normalised(x: jax.Array) -> jax.Array:
    return nn.BatchNorm(use_running_average=True)(x)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A scalar function of a layer's input, of its parameters and a direction, with arguments."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]

    def function(self, inputs: jax.Array, params: Any, direction: jax.Array) -> jax.Array:
        """Return the layer's output along the direction."""
        return jnp.vdot(self.module.apply(params, inputs), direction)

    def arguments(self) -> tuple[jax.Array, Any, jax.Array]:
        inputs = jax.random.normal(jax.random.key(0), self.shape)
        params = jax.jit(self.module.init)(jax.random.key(1), inputs)
        return inputs, params, jax.random.normal(jax.random.key(2), self.shape)

    def batched(self, gradient: Callable[..., Any]) -> Callable[..., Any]:
        return gradient


def _convolution(side: int, **options: Any) -> nn.Conv:
    return nn.Conv(CHANNELS, (side, side), use_bias=False, **options)


IMAGE = (1, SIDE, SIDE, CHANNELS)
CONVOLUTIONS = [
    Layer("3 × 3", _convolution(3), IMAGE),
    Layer("1 × 1", _convolution(1), IMAGE),
    Layer("3 × 3, depthwise", _convolution(3, feature_group_count=CHANNELS), IMAGE),
    Layer("ResNet block", ResNetBlock(), IMAGE),
    Layer("ConvNeXt block", ConvNeXtBlock(), IMAGE),
]
STATE_SPACE = Layer("S5 layer", StateSpace(), (STEPS, CHANNELS))
