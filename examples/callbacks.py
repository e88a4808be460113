"""Follow a run with a callback of your own: it watches the gradient's norm and adds to the record."""

from collections.abc import Sequence

import bertkit


class LargestGradient(bertkit.Callback):
    """Remembers the update with the largest gradient."""

    def __init__(self) -> None:
        self.norm, self.step = 0.0, 0

    def on_updates(self, run: bertkit.Run, updates: Sequence[bertkit.UpdateMetrics]) -> None:
        for one in updates:
            if one.grad_norm > self.norm:
                self.norm, self.step = one.grad_norm, one.step
        run.add_to_record("largest_gradient", {"norm": self.norm, "step": self.step})


bertkit.get_data("sample")
run = bertkit.train(
    "tiny", "sample", recipe="demo", output="runs/callbacks", overwrite=True, callbacks=[LargestGradient()]
)
print(run.record["callbacks"])
