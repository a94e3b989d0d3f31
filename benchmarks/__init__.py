"""What the sweeps cost next to ``jax.grad``: ``python -m benchmarks`` prints the table."""
