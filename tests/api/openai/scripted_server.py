"""A server with a scripted engine, for answers that a tiny random model never gives."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from millm.api.app import create_app
from millm.engine.client import EngineClient
from millm.engine.messages import Finished, Generate, ModelFacts, Token
from millm.loaded import LoadedModel
from millm.text.chat_template import ChatTemplate
from millm.text.response_parser import ResponseTemplate
from millm.text.tokenizer import Tokenizer
from tests.fixtures.bare import bare_state


class ScriptedClient(EngineClient):
    """Answers every sequence with the tokens of `answer`, one event each, and records the requests."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(max_queue=8)
        self.status = "ready"
        self.tokenizer = tokenizer
        self.answer = ""
        self.reason = "stop"
        self.requested: list[Generate] = []
        self.cancelled: list[str] = []

    def check_capacity(self, sequences: int = 1) -> None:
        """Never full."""

    async def generate(self, *requests: Generate) -> AsyncGenerator[Token | Finished]:  # type: ignore[override]
        self.requested += requests
        for token in self.tokenizer.encode(self.answer):
            for request in requests:
                if request.id not in self.cancelled:
                    yield Token(id=request.id, token=token, logprob=-1.0)
        for request in requests:
            yield Finished(id=request.id, reason=self.reason)  # type: ignore[arg-type]

    def cancel(self, *ids: str) -> None:
        self.cancelled += ids


class ScriptedServer:
    """The application over a scripted engine."""

    def __init__(self, folder: Path, context: int = 4096) -> None:
        tokenizer = Tokenizer.from_folder(folder)
        self.engine = ScriptedClient(tokenizer)
        self.state = bare_state()
        self.state.engine = self.engine
        facts = ModelFacts(
            architecture="x", layers=1, width=1, vocab_size=tokenizer.vocab_size, context_length=context, stop_ids=(2,),
            device="cpu", dtype="float32", parameters=1, runner="plain",
        )  # fmt: skip
        template = ChatTemplate.from_folder(folder, tokenizer)
        self.state.model = LoadedModel("m", facts, tokenizer, template, ResponseTemplate.from_folder(folder))
        self.http = TestClient(create_app(self.state), base_url="http://127.0.0.1:8000")

    def chat(self, answer: str, **body: Any) -> dict[str, Any]:
        """The response to a chat whose generated text is `answer`."""
        result = self.ask(answer, **body)
        assert result.status_code == 200, result.text
        return result.json()

    def ask(self, answer: str, **body: Any) -> Any:
        self.engine.answer = answer
        full = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
        return self.http.post("/v1/chat/completions", json=full)

    @property
    def prompt(self) -> str:
        """Text of the last prompt."""
        return self.engine.tokenizer.decode(self.engine.requested[-1].prompt, skip_special=False)
