"""How much a feature does, by strength: the share of capital letters in what the demo model writes, as a curve.

    python examples/dose_response.py dose-response.png

Runs on the demo's model (fetched once, 93 MB) and SAE; half a minute on two cores. `pip install 'millm[examples]'`
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from transformers import AutoModelForCausalLM, AutoTokenizer

from millm import SAE, steered
from millm.demo.bundle import SAE_FOLDER
from millm.demo.weights import prepare
from millm.settings import Settings

FEATURE = 135
STRENGTHS = [0, 20, 30, 40, 50, 60]
PROMPTS = ["Tell me about the sea.", "What is a good breakfast?", "Describe your street."]
TOKENS = 16


def capitals(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / max(len(letters), 1)


def main(picture: Path) -> None:
    folder = prepare(Settings.load().home_folder, on_progress=lambda *_: None)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    sae = SAE.load(SAE_FOLDER)
    chats = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    length = inputs["input_ids"].shape[1]

    shares = []
    for strength in STRENGTHS:
        with steered(model, sae, {FEATURE: strength}) as effect:
            written = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
        answers = tokenizer.batch_decode(written[:, length:], skip_special_tokens=True)
        shares.append([capitals(answer) for answer in answers])
        mean = sum(shares[-1]) / len(answers)
        print(f"strength {strength:3}  |delta|/|x| {effect.delta_norm_ratio:.2f}  capitals {mean:4.0%}  {answers[0]!r}")

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(STRENGTHS, shares, color="0.75", linewidth=1)
    axes.plot(STRENGTHS, [sum(row) / len(row) for row in shares], color="tab:purple", linewidth=2.5, marker="o")
    axes.set(
        xlabel=f"strength of feature {FEATURE} ({sae.labels[FEATURE].label})",
        ylabel="share of capital letters",
        title=f"{len(PROMPTS)} answers, and their mean",
        ylim=(-0.03, 1.03),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dose-response.png"))
