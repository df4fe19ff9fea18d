"""Several processes as one run: their places, meetings, batches and replicas."""
