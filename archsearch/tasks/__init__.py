"""Tasks: what architectures are trained and judged on. Numpy only."""

from archsearch.tasks.base import Task, TaskOptions, share, share_by
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.checked import CheckedTask
from archsearch.tasks.resolve import resolve_task
from archsearch.tasks.splits import Split

__all__ = ["IGNORE", "Batch", "CheckedTask", "Split", "Task", "TaskOptions", "resolve_task", "share", "share_by"]
