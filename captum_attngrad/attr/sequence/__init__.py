"""One explanation for each output of a sequence model."""
