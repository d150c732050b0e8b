"""The search for a better explanation at the cost of three passes."""
