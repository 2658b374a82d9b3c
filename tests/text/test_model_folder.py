"""sentence-transformers' settings: applied, or rejected by name."""

from pathlib import Path

import pytest

from millm.errors import InvalidModel
from millm.text.model_folder import EmbeddingConfig, is_generative_model
from tests.fixtures.encoders import LONGEST, write_encoder, write_json, write_modules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder")


def test_default_pooling_is_mean(tmp_path: Path) -> None:
    assert EmbeddingConfig.from_folder(tmp_path) == EmbeddingConfig(
        pooling="mean", max_tokens=None, lower_case=False, prompt=""
    )


@pytest.mark.parametrize(
    ("written", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "lasttoken"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
    ],
)
def test_pooling_is_read(folder: Path, written: dict[str, object], pooling: str) -> None:
    write_json(folder / "1_Pooling" / "config.json", written)
    assert EmbeddingConfig.from_folder(folder) == EmbeddingConfig(pooling=pooling, max_tokens=LONGEST)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, r"\['mean', 'cls'\]"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean_tokens"),
        ({"pooling_mode": "first"}, "first"),
        ({"word_embedding_dimension": 32}, r"\[\]"),
        ({}, "1_Pooling/config.json"),
    ],
)
def test_other_pooling_modes_are_rejected(folder: Path, written: dict[str, object], named: str) -> None:
    write_json(folder / "1_Pooling" / "config.json", written)
    with pytest.raises(InvalidModel, match=named):
        EmbeddingConfig.from_folder(folder)


def test_a_dense_module_is_rejected_by_name(folder: Path) -> None:
    write_modules(folder, "Transformer", "Pooling", "Dense", "Normalize")
    with pytest.raises(InvalidModel, match="'Dense'"):
        EmbeddingConfig.from_folder(folder)


def test_files_of_newer_versions(folder: Path) -> None:
    """Version 6: other module paths, one name for the pooling, the limit beside the tokenizer."""
    kinds = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]
    paths = ["", "1_Pooling"]
    modules = [{"path": path, "type": f"sentence_transformers.{k}"} for k, path in zip(kinds, paths, strict=True)]
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls", "include_prompt": True})
    write_json(folder / "sentence_bert_config.json", {"transformer_task": "feature-extraction"})
    write_json(folder / "tokenizer_config.json", {"model_max_length": 33})
    assert EmbeddingConfig.from_folder(folder) == EmbeddingConfig(pooling="cls", max_tokens=33)
    write_json(folder / "sentence_bert_config.json", {"transformer_task": "fill-mask"})
    with pytest.raises(InvalidModel, match="fill-mask"):
        EmbeddingConfig.from_folder(folder)


def test_invalid_module_lists_are_rejected(folder: Path) -> None:
    for written in ({"idx": 0}, [1], [{"path": ""}], "x"):
        write_json(folder / "modules.json", written)
        with pytest.raises(InvalidModel, match=r"modules\.json"):
            EmbeddingConfig.from_folder(folder)


def test_a_default_prompt_comes_before_every_text(folder: Path) -> None:
    prompts = {"prompts": {"query": "Find: ", "document": ""}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", prompts)
    assert EmbeddingConfig.from_folder(folder).prepare_text("The Sea") == "Find: The Sea"
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    assert EmbeddingConfig.from_folder(folder).prepare_text("The Sea") == "find: the sea"
    write_json(folder / "config_sentence_transformers.json", {**prompts, "default_prompt_name": "passage"})
    with pytest.raises(InvalidModel, match="passage"):
        EmbeddingConfig.from_folder(folder)


@pytest.mark.parametrize(
    ("architectures", "writes"),
    [
        (["BertModel"], False),
        (["MPNetForMaskedLM"], False),
        (["MistralModel"], False),
        (["GPT2LMHeadModel"], True),
        (["GPT2DoubleHeadsModel"], True),
        (["LlamaForCausalLM"], True),
        (["Gemma3ForConditionalGeneration"], True),
        ([], True),
        (None, True),
    ],
)
def test_generative_architectures(tmp_path: Path, architectures: list[str] | None, writes: bool) -> None:
    write_json(tmp_path / "config.json", {"architectures": architectures})
    assert is_generative_model(tmp_path) is writes
