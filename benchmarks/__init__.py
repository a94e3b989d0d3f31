"""The cost of the sweeps next to ``jax.grad``: ``python -m benchmarks`` prints the table."""
