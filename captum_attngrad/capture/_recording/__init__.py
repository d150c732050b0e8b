"""See the operations of a model while it runs."""
