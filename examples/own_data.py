"""Rows of your own, from whatever holds them: a model that routes messages, with an eighth of the rows held out."""

import bertkit

QUESTIONS = {"billing": "why was I charged for", "delivery": "where is", "returns": "how do I send back"}
rows = [
    {"message": f"{question} my {thing} number {number} ?", "team": team}
    for number in range(20)
    for thing in ("order", "parcel", "gift")
    for team, question in QUESTIONS.items()
]
bertkit.get_data("sample")  # for its small vocabulary; a published model brings its own
run = bertkit.train(
    "tiny", train=rows, text="message", label="team", dev_share=0.125, epochs=6, learning_rate=1e-3,
    output="runs/teams", overwrite=True,
    settings={"model.start": "random", "model.vocab": "data/sample/vocab.txt"},
)  # fmt: skip
with bertkit.load(run.folder) as model:
    print(f"labels: {', '.join(model.labels)}")
    print(model.predict("where is my parcel ?"))
