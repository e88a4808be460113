"""Train with two learning rates and compare: what differs in the settings, scores, speed."""

import bertkit

bertkit.get_data("sample")
runs = [
    bertkit.train("tiny", "sample", recipe="demo", learning_rate=rate, output=f"runs/rate-{rate:g}", overwrite=True)
    for rate in (1e-4, 5e-4)
]
print(bertkit.compare(*(f"rate {run.settings['optimizer.learning_rate']:g}={run.folder}" for run in runs)))
