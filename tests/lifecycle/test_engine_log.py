"""Lines of the engine's log about an answer have the id of its request."""

import httpx
from structlog.testing import capture_logs

from millm.engine.messages import InjectFault
from tests.fixtures.inside import Inside
from tests.lifecycle.asking import body


def test_engine_tracebacks_name_the_request(inside: Inside) -> None:
    inside.run(inside.state.engine.inject(InjectFault(id="fault-1", point="decode", kind="error")))
    with capture_logs() as lines:
        answer = httpx.post(
            f"{inside.base_url}/completions",
            json=body("tiny-llama"),
            headers={"X-Request-ID": "whose-1"},
            timeout=60,
            trust_env=False,
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
    (failed,) = [line for line in lines if line["event"] == "engine.failed"]
    assert failed["request_id"] == "whose-1"
    assert "Traceback" in failed["exception"]
    (ended,) = [line for line in lines if line["event"] == "request.ended"]
    assert (ended["status"], ended["end"], ended["route"]) == (500, "failed", "/v1/completions")
