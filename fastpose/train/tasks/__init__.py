"""What a run is about: the data, network, objective and scores of each kind of network."""

from fastpose.train.tasks.task import Table, Task, task_for

__all__ = ["Table", "Task", "task_for"]
