"""bertkit: one BERT trainer for every vendor's chip.

    import bertkit

    run = bertkit.train("models/minilm", "mrpc", data_dir="glue", precision="bf16", epochs=3, output="runs/mrpc")
    print(run.metrics["accuracy"], run.folder)
    bertkit.load("runs/mrpc").predict([("He left.", "He went away.")])

docs/python.md has the rest. Nothing is imported before it is used: `import bertkit` takes no framework and no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bertkit.version import __version__ as __version__

if TYPE_CHECKING:
    from bertkit.comparison.runs import compare_runs as compare
    from bertkit.comparison.search.report import Findings
    from bertkit.comparison.search.tuning import tune
    from bertkit.data.tasks.makers import table_task
    from bertkit.data.tasks.task import Task
    from bertkit.distributed.world import World
    from bertkit.engine.interface import Job
    from bertkit.errors import UserError
    from bertkit.training.api import evaluate, get_data, open_engine, prepare, train, updates
    from bertkit.training.augmenting import AugmentationReport, augment
    from bertkit.training.callbacks.base import Callback
    from bertkit.training.callbacks.integrations import Mlflow, TensorBoardCallback, WeightsAndBiases
    from bertkit.training.callbacks.stopping import EarlyStopping
    from bertkit.training.encoder import Encoder, TokenEmbeddings, load_encoder
    from bertkit.training.predictor import Answer, Predictor, load
    from bertkit.training.preparing import Prediction, Prepared
    from bertkit.training.run import Run, UpdateMetrics
    from bertkit.training.stages import distill
    from bertkit.training.trainer import Trainer

# Where each public name is. The modules are imported when the name is used first.
_PLACES = {
    "Answer": "training.predictor",
    "AugmentationReport": "training.augmenting",
    "Callback": "training.callbacks.base",
    "EarlyStopping": "training.callbacks.stopping",
    "Encoder": "training.encoder",
    "Findings": "comparison.search.report",
    "Job": "engine.interface",
    "Mlflow": "training.callbacks.integrations",
    "Prediction": "training.preparing",
    "Predictor": "training.predictor",
    "Prepared": "training.preparing",
    "Run": "training.run",
    "Task": "data.tasks.task",
    "TensorBoardCallback": "training.callbacks.integrations",
    "TokenEmbeddings": "training.encoder",
    "Trainer": "training.trainer",
    "UpdateMetrics": "training.run",
    "UserError": "errors",
    "WeightsAndBiases": "training.callbacks.integrations",
    "World": "distributed.world",
    "augment": "training.augmenting",
    "compare": "comparison.runs",
    "distill": "training.stages",
    "evaluate": "training.api",
    "get_data": "training.api",
    "load": "training.predictor",
    "load_encoder": "training.encoder",
    "open_engine": "training.api",
    "prepare": "training.api",
    "table_task": "data.tasks.makers",
    "train": "training.api",
    "tune": "comparison.search.tuning",
    "updates": "training.api",
}
_OTHER_NAMES = {"compare": "compare_runs"}
__all__ = [
    "Answer", "AugmentationReport", "Callback", "EarlyStopping", "Encoder", "Findings", "Job", "Mlflow", "Prediction",
    "Predictor", "Prepared", "Run", "Task", "TensorBoardCallback", "TokenEmbeddings", "Trainer", "UpdateMetrics",
    "UserError", "WeightsAndBiases", "World", "augment", "compare", "distill", "evaluate", "get_data", "load",
    "load_encoder", "open_engine", "prepare", "table_task", "train", "tune", "updates",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'bertkit' has no attribute {name!r}")
    found = getattr(import_module(f"bertkit.{_PLACES[name]}"), _OTHER_NAMES.get(name, name))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
