"""From a function to its graph: what JAX traces, the flat equations, and the names of modules."""
