"""Fine-tune a model and look at its scores: the least that it takes.

Settings that a script leaves open come from the environment, as in BERTKIT_BACKEND=cpu BERTKIT_TRAIN_STEPS=20.
"""

import bertkit

bertkit.get_data("sample")
run = bertkit.train("tiny", "sample", recipe="demo", output="runs/train", overwrite=True)
print(f"accuracy {run.metrics['accuracy']:.3f} after {run.step} updates; everything is in {run.folder}")
