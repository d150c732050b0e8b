"""Running, recording, differentiating and reducing: what all attributions share."""
