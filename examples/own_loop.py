"""A training loop of your own on any backend: the trainer's data, updates and engine, and nothing else of it."""

from contextlib import closing

import bertkit

bertkit.get_data("sample")
setup = bertkit.prepare("tiny", "sample", recipe="demo")
with closing(bertkit.open_engine(setup.job, backend=setup.target.backend.name)) as engine:
    for update in bertkit.updates(setup.train.features, batch_size=32, seed=1, epochs=2):
        scalars = engine.train_step(update, 5e-4 * min(1.0, update.step / 20))
        if update.step % 20 == 0:  # float() waits for the device
            print(f"update {update.step}: loss {float(scalars['loss']):.4f}")
    right = examples = 0
    for update in bertkit.updates(setup.dev[0].features, batch_size=32):
        (batch,) = update.micro_batches
        right += int((engine.predict(batch)["logits"].argmax(-1) == batch["labels"]).sum())
        examples += len(batch["labels"])
print(f"accuracy {right / examples:.3f} on {examples} examples")
