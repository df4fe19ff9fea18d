"""Inference: running a model on pictures, and what is drawn and written from its answers."""
