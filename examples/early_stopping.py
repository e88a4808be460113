"""End a run where the dev set's score has stopped rising, and keep the best model as the result."""

import bertkit

bertkit.get_data("sample")
run = bertkit.train(
    "tiny",
    "sample",
    recipe="demo",
    epochs=10,
    output="runs/early",
    overwrite=True,
    settings={"evaluation.every": 50, "checkpoint.result": "best"},
    callbacks=[bertkit.EarlyStopping(patience=2)],
)
print(f"{run.step} of {run.steps} updates: {run.finished or 'it rose to the end'}")
