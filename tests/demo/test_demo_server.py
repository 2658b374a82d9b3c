"""`millm demo` end to end: profiles have their effect, and requests do not affect each other."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from openai import OpenAI

from millm.engine.messages import LoadModel
from millm.engine.model_loader import load_model, pack_int8
from millm.text.chat_template import ChatTemplate, PromptMessage
from millm.text.tokenizer import Tokenizer
from tests.fixtures.process import Server, running

pytestmark = pytest.mark.demo

MODEL = "smollm2-135m-instruct"
QUESTION = "Tell me about the sea."
TOKENS = 24


@pytest.fixture(scope="module")
def client(demo_server: Server) -> OpenAI:
    return OpenAI(base_url=demo_server.base_url, api_key="none", max_retries=0)


def ask(client: OpenAI, model: str = MODEL, **more: object) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=TOKENS, temperature=0, **more
    )
    return answer.choices[0].message.content or ""


def share_of_capitals(text: str) -> float:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isupper() for letter in letters) / len(letters)


def test_unsteered_answer_matches_generate(client: OpenAI, demo_folder: Path) -> None:
    """In 8 bits, as the demo computes on a CPU."""
    tokenizer = Tokenizer.from_folder(demo_folder)
    ids = ChatTemplate.from_folder(demo_folder, tokenizer).render_prompt([PromptMessage("user", QUESTION)]).ids
    command = LoadModel(id="load", path=str(demo_folder), device="cpu", cpu_int8=True)
    model = load_model(command, lambda *_: None)
    pack_int8(model, command, lambda *_: None)
    generated = model.generate(torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
    assert ask(client) == tokenizer.decode(generated[0, len(ids) :].tolist())


def test_profile_steers_and_removal_restores_the_base(client: OpenAI) -> None:
    """Base, steered, base again: the third equals the first."""
    before = ask(client)
    yelling = ask(client, f"{MODEL}:yelling")
    assert ask(client) == before
    assert share_of_capitals(yelling) > 0.8
    assert share_of_capitals(before) < 0.2


def test_request_body_steers_one_request(client: OpenAI) -> None:
    knob = {"steering": {"features": [{"index": 135, "strength": 60}]}}
    assert ask(client, extra_body=knob) == ask(client, f"{MODEL}:yelling")
    assert ask(client, f"{MODEL}:yelling", extra_body={"steering": None}) == ask(client)


def test_concurrent_answers_equal_single_ones(client: OpenAI) -> None:
    models = [MODEL, f"{MODEL}:yelling", f"{MODEL}:food", MODEL]
    alone = [ask(client, model) for model in models]
    with ThreadPoolExecutor(len(models)) as pool:
        assert list(pool.map(lambda model: ask(client, model), models)) == alone


def test_models_route_lists_the_model_and_its_profiles(client: OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed[0] == MODEL
    assert {f"{MODEL}:{name}" for name in ("yelling", "food", "law", "excited")} <= set(listed)


def test_second_start_needs_no_network(
    demo_server: Server, demo_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights in another home, and an index that answers nothing."""
    for name in ("PIP_INDEX_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "demo").symlink_to(demo_home / "demo")
    with running("demo", model=MODEL, home=tmp_path) as second:
        client = OpenAI(base_url=second.base_url, api_key="none", max_retries=0)
        assert client.models.retrieve(MODEL).id == MODEL
