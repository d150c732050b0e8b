"""Where examples, heads, queries and keys are in the tensors of a model."""
