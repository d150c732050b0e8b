"""Prove the layout of recorded calls, by forward passes on changed inputs."""
