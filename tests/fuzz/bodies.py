"""Valid requests of every kind, to be mutated."""

from tests.fuzz.mutations import Body

USER = {"role": "user", "content": "Hi"}
PARTS = [{"type": "text", "text": "Hi"}]
PARAMETERS = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": PARAMETERS}}
LOOK = {"type": "function", "function": {"name": "look"}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
SCHEMA = {"name": "answer", "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}
KNOB = {"index": 3, "strength": 2.5, "mode": "add", "unit": "raw"}

CHATS: tuple[Body, ...] = (
    {"model": "tiny-llama", "messages": [USER], "max_tokens": 3},
    {
        "model": "tiny-llama:push", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 2,
        "messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": PARTS}],
    },
    {
        "model": "tiny-llama", "max_tokens": 3, "n": 2, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
        "seed": 1, "stop": ["a", "b"], "logit_bias": {"5": 3}, "logprobs": True, "top_logprobs": 3,
        "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "stop_token_ids": [9],
        "min_tokens": 1, "user": "me", "messages": [USER],
    },
    {
        "model": "tiny-llama", "max_tokens": 4, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False,
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
        ],
    },
    {
        "model": "tiny-llama", "max_tokens": 8, "tools": [TOOL], "tool_choice": LOOK, "messages": [USER],
        "chat_template_kwargs": {"enable_thinking": False},
    },
    {
        "model": "tiny-llama", "max_tokens": 8, "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": SCHEMA},
    },
    {
        "model": "tiny-llama", "max_tokens": 2, "messages": [USER],
        "steering": {"features": [KNOB], "positions": "all", "skip": "bos"},
        "activations": {"features": [1, 2], "top_k": 2, "tokens": "all"},
    },
)  # fmt: skip
TEXTS: tuple[Body, ...] = (
    {"model": "tiny-llama", "prompt": ["Hi", "you"], "max_tokens": 2, "n": 1, "best_of": 2},
    {"model": "tiny-llama", "prompt": [[5, 6, 7]], "max_tokens": 0, "echo": True, "logprobs": 2},
)
EMBEDDINGS: tuple[Body, ...] = (
    {"model": "tiny-llama", "input": ["Hi", "you"], "encoding_format": "base64", "dimensions": 8},
    {"model": "tiny-llama", "input": [[5, 6], [7]], "activations": {"features": [1]}},
)
RESPONSES: tuple[Body, ...] = (
    {
        "model": "tiny-llama", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}],
        "instructions": "Be.", "max_output_tokens": 16, "text": {"format": {"type": "text"}},
        "tools": [{"type": "function", "name": "look", "parameters": PARAMETERS, "strict": True}],
    },
)  # fmt: skip

BODIES: tuple[tuple[str, Body], ...] = (
    *(("/v1/chat/completions", body) for body in CHATS),
    *(("/v1/completions", body) for body in TEXTS),
    *(("/v1/embeddings", body) for body in EMBEDDINGS),
    *(("/v1/responses", body) for body in RESPONSES),
)
