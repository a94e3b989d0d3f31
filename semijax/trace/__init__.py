"""The way from a function to its graph: JAX's trace, flat equations, and names of modules."""
