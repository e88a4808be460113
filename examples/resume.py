"""Train in two jobs, as on a cluster with a time limit: the second goes on where the first was ended, to the bit."""

import bertkit

bertkit.get_data("sample")
first = bertkit.train("tiny", "sample", recipe="demo", output="runs/resume", overwrite=True, steps_this_run=5)
print(f"ended by {first.interrupted} after {first.step} of {first.steps} updates; the record: {first.record}")
second = bertkit.train("tiny", "sample", recipe="demo", output="runs/resume", resume=True)
print(f"update {second.step}: {second.metrics}")
