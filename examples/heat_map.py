"""What fires where: the demo SAE's most active features at every token of a text, as a heat map.

    python examples/heat_map.py heat-map.png

Runs on the demo's model (fetched once, 93 MB) and SAE; a few seconds. `pip install 'millm[examples]'`
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from millm import SAE, watching
from millm.demo.bundle import SAE_FOLDER
from millm.demo.weights import prepare
from millm.settings import Settings

TEXT = "Stop! DO NOT TOUCH THAT, it is hot. Le chat est sur la table. Would you like bread and cheese?"


def main(picture: Path) -> None:
    folder = prepare(Settings.load().home_folder, on_progress=lambda *_: None)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sae = SAE.load(SAE_FOLDER)

    features = sorted(sae.labels)
    with torch.no_grad(), watching(model, sae, features=features) as seen:
        model(**tokenizer(TEXT, return_tensors="pt"))
    tokens = tokenizer.convert_ids_to_tokens(seen[0].tokens)[1:]
    activations = seen[0].activations[1:].T  # [features, tokens]; position 0 is the attention sink

    strongest = activations.amax(dim=1).topk(8).indices.tolist()
    names = [f"{features[row]}  {sae.labels[features[row]].label}" for row in strongest]
    for row, name in zip(strongest, names, strict=True):
        best = int(activations[row].argmax())
        print(f"{name}: {float(activations[row, best]):.1f} at {tokens[best]!r}")

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(activations[strongest].numpy(), aspect="auto", cmap="Purples")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(tokens)), [token.replace("Ġ", " ") for token in tokens], rotation=60, ha="right")
    figure.colorbar(drawn, label="activation", pad=0.01)
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "heat-map.png"))
