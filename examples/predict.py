"""Ask a trained model: one text, a list, and a stream that is answered piece by piece."""

import bertkit

bertkit.get_data("sample")
run = bertkit.train("tiny", "sample", recipe="demo", output="runs/predict", overwrite=True)
texts = ["a clumsy script", "a clever script"]
with bertkit.load(run.folder) as model:
    print(model.predict("the plot is not dull"))
    for text, found in zip(texts, model.predict(texts), strict=True):
        print(f"{text}: {found.label} ({found.scores[found.label]:.2f})")
    lines = (f"the {thing} was great" for thing in ("music", "cast", "ending"))
    print([found.label for found in model.predict(lines)])
