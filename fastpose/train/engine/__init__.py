"""One optimisation step on a device: update, graph, averages and what is read back."""
