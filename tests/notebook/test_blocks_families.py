"""Other families than Llama: layers that return tuples, centring norms, tokens seen only by the outer model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from millm import SAE, steered, watching
from tests.fixtures.tiny import write_sae
from tests.notebook.test_blocks import logits
from tests.sae.test_hook_points import FAMILIES, WIDTH

IDS = torch.tensor([[5, 6, 7, 8, 9], [11, 3, 12, 4, 13]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])


@pytest.fixture(params=["gemma2", "gemma3_multimodal", "gpt2", "gptj", "gpt_neox", "qwen3", "falcon", "opt"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    kind, values, _ = FAMILIES[request.param]
    build = AutoModelForImageTextToText if request.param == "gemma3_multimodal" else AutoModelForCausalLM
    return build.from_config(AutoConfig.for_model(kind, **values)).eval()


def test_a_batch_is_steered_watched_and_restored(model: PreTrainedModel, tmp_path: Path) -> None:
    sae = SAE.load(write_sae(tmp_path / "sae", width=WIDTH, center_inputs=False))
    before = logits(model, IDS, attention_mask=MASK)
    with steered(model, sae, {3: 20.0}) as effect, watching(model, sae, [3], when="after") as seen:
        written = model.generate(IDS, attention_mask=MASK, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert effect.tokens_steered == (4 + 2) + (2 + 2)
        assert [row.tokens for row in seen] == [written[0, :7].tolist(), written[1, 2:7].tolist()]
        assert all((row.activations[1:] > 5).all() for row in seen)
        pushed = logits(model, IDS, attention_mask=MASK)
    touched = (pushed != before).any(-1)
    assert touched[0].tolist() == [False, True, True, True, True]
    assert touched[1, 2:].tolist() == [False, True, True]
    assert torch.equal(logits(model, IDS, attention_mask=MASK), before)
