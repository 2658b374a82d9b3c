"""bitsandbytes in 8 and 4 bits on the CPU: loading, facts, steering and watching."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from millm.demo import bundle
from millm.engine.client import EngineClient
from millm.engine.messages import AttachSae, Finished, LoadModel, Quantization, Token
from millm.engine.model_loader import load_model
from millm.errors import InvalidModel, InvalidRequest
from millm.profiles.store import read_profile
from millm.sae.config import calibration_text
from millm.sae.steering import FeatureSetting, SaeSteering, Steering, Watch, coefficients
from millm.text.chat_template import ChatTemplate, PromptMessage
from millm.text.tokenizer import Tokenizer
from tests.engine.conftest import Engine, Loop, described
from tests.engine.engine_harness import CALIBRATION
from tests.engine.test_core_generation import PUSH, request
from tests.fixtures.tiny import FEATURES, write_model, write_sae

BITS: tuple[Quantization, ...] = ("8bit", "4bit")
LABELS = {"8bit": "bitsandbytes 8-bit", "4bit": "bitsandbytes 4-bit (nf4)"}
NEW = 10


def quiet(stage: str, done: int, total: int) -> None:
    pass


def command(folder: Path, quantization: Quantization, **more: object) -> LoadModel:
    return LoadModel(id="load", path=str(folder), device="cpu", quantization=quantization, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like the tiny model, in multiples of 64; k and v have 16 outputs."""
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny-llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=387, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=1, max_position_embeddings=256, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exact(model_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sae(tmp_path_factory.mktemp("saes") / "tiny", width=64)


@pytest.fixture(scope="module", params=BITS)
def bits(request: pytest.FixtureRequest) -> Quantization:
    return request.param


@pytest.fixture(scope="module")
def quantized(model_folder: Path, bits: Quantization) -> PreTrainedModel:
    return load_model(command(model_folder, bits, cpu_int8=True), quiet)


@pytest.fixture(scope="module")
def saved(model_folder: Path, bits: Quantization, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized checkpoint. (Saving repacks the model, so it is not the other tests' one.)"""
    folder = tmp_path_factory.mktemp("quantized")
    load_model(command(model_folder, bits), quiet).save_pretrained(folder)
    return folder


def test_facts_name_the_quantization(quantized: PreTrainedModel, bits: Quantization, exact: LlamaForCausalLM) -> None:
    """`parameters` counts the model's, not packed bytes; CPU int8 is not applied on top."""
    facts = described(quantized)
    assert facts.weights == LABELS[bits]
    assert facts.parameters == exact.num_parameters()
    assert facts.device == "cpu"
    assert quantized.get_memory_footprint() < 0.8 * exact.get_memory_footprint()


def test_quantized_layers_are_close_to_the_originals(
    quantized: PreTrainedModel, exact: LlamaForCausalLM, bits: Quantization
) -> None:
    worst = {"8bit": 0.02, "4bit": 0.12}[bits]
    for ours, theirs in zip(quantized.model.layers, exact.model.layers, strict=True):
        for part in ("self_attn.k_proj", "mlp.up_proj", "mlp.down_proj"):
            layer = theirs.get_submodule(part)
            x = torch.randn(20, layer.in_features, generator=torch.Generator().manual_seed(0))
            with torch.inference_mode():
                right, got = layer(x), ours.get_submodule(part)(x)
            assert 0 < float((got - right).norm() / right.norm()) < worst


def test_unsupported_4bit_layers_are_rejected_on_a_cpu(tiny_model: Path) -> None:
    """Width 48: blocks of 64 cross rows, which bitsandbytes reads wrongly on a CPU."""
    with pytest.raises(InvalidRequest, match=r"multiple of 64, and model\.layers\.0\..* has 48; ask for 8bit or none"):
        load_model(command(tiny_model, "4bit"), quiet)
    assert described(load_model(command(tiny_model, "8bit"), quiet)).weights == LABELS["8bit"]


def test_row_is_independent_of_its_batch(quantized: PreTrainedModel) -> None:
    """Other rows do not change which columns are rounded."""
    layer = quantized.model.layers[0].mlp.up_proj
    x = torch.randn(4, 6, layer.in_features, generator=torch.Generator().manual_seed(0))
    x[1:] *= 1000
    with torch.inference_mode():
        torch.testing.assert_close(layer(x)[:1], layer(x[:1]), rtol=1e-6, atol=1e-6)


def test_quantized_checkpoint_is_loaded_unchanged_or_rejected(saved: Path, bits: Quantization) -> None:
    other = next(each for each in BITS if each != bits)
    assert described(load_model(command(saved, "none", cpu_int8=True), quiet)).weights == LABELS[bits]
    assert described(load_model(command(saved, bits), quiet)).weights == LABELS[bits]
    with pytest.raises(
        InvalidRequest, match=f"quantized already \\({bits}\\), so quantization {other} is not possible"
    ):
        load_model(command(saved, other), quiet)


def test_non_finite_weights_are_rejected_before_quantization(
    model_folder: Path, bits: Quantization, tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][5, 7] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidModel, match=r"model\.layers\.2\.mlp\.up_proj\.weight holds NaN"):
        load_model(command(folder, bits), quiet)


def test_missing_bitsandbytes_names_the_package(
    model_folder: Path, bits: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InvalidRequest, match="pip install bitsandbytes") as refused:
        load_model(command(model_folder, bits), quiet)
    assert refused.value.param == "quantization"


# ------------------------------------------------------------------------------------- through the engine process


@pytest.fixture(scope="module")
def client(loop: Loop) -> Iterator[EngineClient]:
    client = EngineClient(max_queue=8)
    loop.run(client.start())
    yield client
    loop.run(client.close())


@pytest.fixture(scope="module")
def tiny_engine(
    client: EngineClient, loop: Loop, model_folder: Path, sae_folder: Path, canonical_root: Path, bits: Quantization
) -> Engine:
    """One engine that loads one kind after the other."""
    facts = loop.run(client.load(command(model_folder, bits)))
    assert facts.weights == LABELS[bits]
    attach = AttachSae(
        id="attach", sae="tiny", path=str(sae_folder), canonical_root=str(canonical_root), calibration_ids=CALIBRATION,
        model_name="tiny-llama",
    )  # fmt: skip
    loop.run(client.attach(attach))
    return Engine(loop, client)


def test_unsteered_output_matches_generate(tiny_engine: Engine, quantized: PreTrainedModel) -> None:
    prompt = torch.tensor([request("any").prompt])
    with torch.inference_mode():
        theirs = quantized.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None)
    assert tiny_engine.tokens(request("base")) == theirs[0, prompt.shape[1] :].tolist()


def test_quantized_model_steers_and_watches(tiny_engine: Engine) -> None:
    watch = (Watch(sae="tiny", features=(0, 3, FEATURES - 1)),)
    events = tiny_engine.generate(request("steered", PUSH, watch=watch))[0]
    tokens = [event for event in events if isinstance(event, Token)]
    assert isinstance(events[-1], Finished)
    assert events[-1].receipt is not None
    assert events[-1].receipt.tokens_steered == len(request("any").prompt) - 1 + len(tokens) - 1
    assert [token.token for token in tokens] != tiny_engine.tokens(request("again"))
    readings = [reading for token in tokens[1:] for reading in token.readings]
    assert len(readings) == len(tokens) - 1
    assert any(value != 0 for reading in readings for value in reading.values)


@pytest.mark.slow
@pytest.mark.demo
def test_the_demo_model_steers_and_watches(
    loop: Loop, demo_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A shipped profile has its named effect in 8 and in 4 bits, without warnings in the log."""
    client = EngineClient(max_queue=8)
    loop.run(client.start())
    try:
        for bits in BITS:
            loop.run(client.load(command(demo_folder, bits)))
            steered_and_watched(Engine(loop, client), demo_folder, tmp_path)
    finally:
        loop.run(client.close())
    assert [line for line in capfd.readouterr().err.splitlines() if "engine.runner" not in line] == []


def steered_and_watched(engine: Engine, demo_folder: Path, canonical_root: Path) -> None:
    tokenizer = Tokenizer.from_folder(demo_folder)
    attach = AttachSae(
        id="attach", sae="demo", path=str(bundle.SAE_FOLDER), canonical_root=str(canonical_root),
        model_name=bundle.MODEL_NAME,
        calibration_ids=tuple(tuple(tokenizer.encode(text)) for text in calibration_text()[:1]),
    )  # fmt: skip
    engine.loop.run(engine.client.attach(attach))
    template = ChatTemplate.from_folder(demo_folder, tokenizer)
    prompt = tuple(template.render_prompt([PromptMessage("user", "Tell me about the sea.")]).ids)
    yelling = profile("yelling")
    watch = (Watch(sae="demo", features=(yelling.by_sae[0].features[0].index,)),)
    base, steered = (
        engine.generate(request(name, steering, prompt=prompt, max_tokens=NEW, watch=watch))[0]
        for name, steering in (("base", None), ("steered", yelling))
    )
    texts = [tokenizer.decode([event.token for event in each if isinstance(event, Token)]) for each in (base, steered)]
    assert share_of_capitals(texts[0]) < 0.3 < 0.8 < share_of_capitals(texts[1])
    receipt = steered[-1].receipt if isinstance(steered[-1], Finished) else None
    assert receipt is not None
    assert receipt.tokens_steered == len(prompt) - 1 + NEW - 1
    assert len([reading for event in steered for reading in event.readings]) == NEW - 1


def profile(name: str) -> Steering:
    """A shipped profile, as the API process resolves it for the demo's SAE."""
    features = read_profile(bundle.PROFILES_FOLDER / f"{name}.json").features
    rows = tuple(
        coefficients(FeatureSetting(index=each.index, strength=each.strength or 0.0, mode=each.mode))
        for each in features
    )
    return Steering(by_sae=(SaeSteering("demo", rows),))


def share_of_capitals(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / len(letters)
