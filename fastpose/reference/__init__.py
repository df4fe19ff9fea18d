"""Plain-PyTorch operations: the specification, the fallback and the oracle of every fast implementation."""
