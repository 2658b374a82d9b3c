"""Everything that crosses the pipe between the API process and the engine process: frozen values, nothing else.

Commands go in, events come out, each encoded as msgpack. An event names the command it answers by `id`.
The engine knows nothing about text: token ids in, token ids out.
"""

from typing import Any, Literal

import msgspec

from millm.hardware import Platform
from millm.sae.steering import Steering, Watch

Quantization = Literal["none", "8bit", "4bit"]
DeviceMap = Literal["single", "auto"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AttentionImplementation = Literal["auto", "eager", "sdpa", "flash_attention_2"]
Pooling = Literal["mean", "cls", "lasttoken", "max"]
"""sentence-transformers' names of how the last hidden states of a text become one vector."""
KV_CACHE_MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.25}
"""Of what is free once the model is loaded, how much keys and values get. A CPU's memory is everybody's."""


# --------------------------------------------------------------------------------------- commands: API → engine


class LoadModel(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Load a folder of Hugging Face weights, replacing whatever is loaded."""

    id: str
    path: str
    device: str = "auto"
    dtype: Dtype = "auto"
    cpu_threads: int | None = None
    quantization: Quantization = "none"
    """Weights as they are, or bitsandbytes' 8-bit or 4-bit form of them."""
    cpu_int8: bool = False
    """On a CPU, unquantised linear layers compute in 8 bits where that is faster."""
    runner: Literal["auto", "slots", "plain"] = "auto"
    graphs: bool = False
    """Replay decode steps as CUDA graphs, where the device and the self-test allow it."""
    slots: int = 32
    """Sequences that may run at once."""
    context: int | None = None
    """Tokens that a sequence may have, where that is to be fewer than the model can."""
    kv_cache_bytes: int | None = None
    """Memory for keys and values; None: a share of what is free."""
    special_ids: tuple[int, ...] = ()
    """Token ids that `skip: special` leaves alone."""
    generates: bool = True
    """False: the checkpoint has no head that writes tokens (an encoder); it can only embed."""
    device_map: DeviceMap = "single"
    """`auto` lets accelerate spread the layers over several devices, and then one sequence runs at a time."""
    attention: AttentionImplementation = "auto"
    """transformers' implementation; `auto` is the model's own choice, or ours where it computes the same."""
    trust_remote_code: bool = False
    """The checkpoint's own Python may run: the operator has named this repository."""
    unload_first: bool = False
    """What is loaded goes before the files are read: there is no room for both."""


class UnloadModel(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Let go of the model, of every SAE and of what is in flight."""

    id: str


class AttachSae(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Read an SAE, check that it belongs here, calibrate it and put its tap in place."""

    id: str
    sae: str
    """The name requests use for this attachment."""
    path: str
    canonical_root: str
    """Where the memory-mapped canonical copy is kept."""
    hook_point: str | None = None
    """Overrides what the SAE's own configuration says, e.g. `blocks.20.hook_resid_post`."""
    calibration_ids: tuple[tuple[int, ...], ...]
    """A short bundled text as token ids: the residual norm and the self-check are measured on it."""
    model_name: str
    """What the loaded model is called, to compare with the model the SAE was trained on."""
    allow_model_mismatch: bool = False
    """An SAE of another model of the same width may be attached, with a warning."""
    replaces: str | None = None
    """An SAE that is detached in the same turn, once this one has proved to fit."""


class DetachSae(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Nothing new uses this SAE; what was begun with it ends with it, and then its hook goes."""

    id: str
    sae: str


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen. The defaults are OpenAI's."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    repetition_penalty: float = 1.0
    """Over prompt and answer: positive logits are divided by it, negative ones multiplied (CTRL; transformers)."""
    min_tokens: int = 0
    """No stop token is chosen before so many."""
    seed: int | None = None
    logprobs: int | None = None
    """None: no logprobs; n: the chosen token's and those of the n likeliest."""


class Generate(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One sequence to continue: a value that carries its own sampling, steering and watch list."""

    id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop_ids: tuple[int, ...] = ()
    steering: Steering | None = None
    watch: tuple[Watch, ...] = ()
    follows_active: bool = False
    """True: a later `SetActiveSteering` applies to this sequence too, from its next token."""
    deadline_seconds: float | None = None
    """Give up this long after the engine got the request."""
    grammar: str | None = None
    """What the answer has to obey, as llguidance writes a grammar (`text/grammar.py`)."""
    prompt_logprobs: int | None = None
    """Also report how likely the prompt's tokens were, each with so many of the likeliest."""
    model: str = ""
    """`ModelFacts.id` of the load whose token ids these are: another model's will not do."""


class Embed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """One text to turn into a vector. Never steered: an SAE only watches."""

    id: str
    tokens: tuple[int, ...]
    pooling: Pooling = "mean"
    watch: tuple[Watch, ...] = ()
    deadline_seconds: float | None = None
    model: str = ""
    """As in `Generate`."""


class ScoreAnswer(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How likely an answer is under the base model, and how far a steering moves the model along it."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    """At least one token."""
    steering: Steering | None = None
    """None: the base model alone is asked."""
    deadline_seconds: float | None = None
    model: str = ""
    """As in `Generate`."""


class ScanFeatures(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Which features of the whole dictionary fire on a text: position 0 and special tokens left out."""

    id: str
    sae: str
    tokens: tuple[int, ...]
    deadline_seconds: float | None = None
    attachment: str = ""
    """As in `Watch`."""
    model: str = ""
    """As in `Generate`."""


class DescribeFeature(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What a feature's decoder row says of it."""

    id: str
    sae: str
    index: int
    tokens: int = 10
    """Promoted, and suppressed, so many each."""
    neighbours: int = 10


class ComputeDirections(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The vectors that a steering adds, where it adds the same at every token (mode `add`)."""

    id: str
    steering: Steering


class Decompose(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A vector at an SAE's hook point as strengths of a few of its features (orthogonal matching pursuit)."""

    id: str
    sae: str
    vector: bytes
    """Little-endian float32, in residual units."""
    most: int = 16


class SetActiveSteering(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the sequences that follow the active steering get from their next token; others keep their own."""

    steering: Steering | None


FaultPoint = Literal["load", "attach", "prefill", "decode"]


class InjectFault(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Fail on purpose, in tests (`engine/faults.py`)."""

    id: str
    point: FaultPoint
    kind: Literal["oom", "error", "hang"]
    after: int = 0
    """Times that the point is passed unharmed first."""
    times: int = 1


class Cancel(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Stop a sequence at the next step; it still gets its `Finished`."""

    id: str


FeatureQuery = DescribeFeature | ComputeDirections | Decompose
"""Answered at once, between two steps."""
TextCommand = Embed | ScoreAnswer | ScanFeatures
"""A pass or two of its own, in turn with the steps of those that run."""
Command = (
    LoadModel
    | UnloadModel
    | AttachSae
    | DetachSae
    | Generate
    | TextCommand
    | FeatureQuery
    | SetActiveSteering
    | Cancel
    | InjectFault
)


class Started(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The first event."""

    platform: Platform


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device, measured after the load."""

    weights: int
    kv_cache: int
    """Reserved for keys and values, allocated when they are first needed."""
    process: int
    """All that the engine holds: on a GPU what torch allocated there, else the process's resident memory."""
    free: int
    """What the device had left then."""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the loaded model says of itself."""

    id: str = ""
    """Of the `LoadModel` that brought it."""
    architecture: str
    layers: int
    width: int
    vocab_size: int
    context_length: int
    stop_ids: tuple[int, ...]
    device: str
    dtype: str
    parameters: int
    runner: str
    """The self-test's verdict: `slots + graphs`, `slots` or `plain`; `encoder` for what only embeds."""
    runner_reason: str = ""
    """Why not more than that."""
    slots: int = 1
    """Sequences that run at once."""
    generates: bool = True
    """False: an encoder, which can only embed."""
    memory: MemoryUse | None = None
    weights: str = ""
    """How the weights are computed with, e.g. `float32`, `int8 on CPU`, `bitsandbytes 4-bit`."""


class SaeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What attaching an SAE found out."""

    id: str = ""
    """Of the `AttachSae` that brought it."""
    sae: str
    architecture: str
    layer: int
    hook_point: str
    features: int
    steerable: bool
    """False for SAEs that only read here (transcoders: their output is not this hook)."""
    exclude_special_tokens: bool
    residual_norm: float
    """Median ‖x‖ at the hook over the calibration text, position 0 left out: the unit `norm`."""
    variance_explained: float | None
    l0: float
    """Mean number of active features per token on the same text."""
    warnings: tuple[str, ...]
    sha256: str
    memory: int = 0
    """Bytes that it holds on the device while it is attached."""
    sample_every: int = 1
    """`top_k` reads the whole dictionary; at every n-th position it stays within its share of the time."""


class Progress(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How far a command has come."""

    id: str
    stage: str
    done: int
    total: int


class ModelLoaded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: str
    facts: ModelFacts


class SaeAttached(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: str
    facts: SaeFacts


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """Activations of one SAE at one token that went through the model."""

    sae: str
    position: int
    """Index of the token in prompt + completion."""
    values: tuple[float, ...]
    """One per watched feature, in the order asked for."""
    top: tuple[tuple[int, float], ...] = ()
    """(feature, activation), largest first."""
    after: tuple[float, ...] = ()
    """`values` after steering, where a watch wants both."""
    top_after: tuple[tuple[int, float], ...] = ()


class Token(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The next token of a sequence."""

    id: str
    token: int
    logprob: float | None = None
    """Natural log of the model's own probability, before penalties, bias and temperature."""
    top: tuple[tuple[int, float], ...] = ()
    readings: tuple[Reading, ...] = ()
    """Of the tokens that went through the model in this step: the prompt first, then each token fed back."""


class PromptScores(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """How likely the next tokens of the prompt were, given those before them; the first token has no score."""

    id: str
    scores: tuple["TokenScore", ...]
    """Of the tokens from position 1 on, in order, as many as this step has computed."""


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """How likely one token of the prompt was."""

    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


class TextEmbedded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A text's vector, of unit length."""

    id: str
    vector: bytes
    """Little-endian float32."""
    readings: tuple[Reading, ...] = ()


class AnswerScored(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """In nats, means over the answer's tokens."""

    id: str
    tokens: int
    nll: float
    """−ln p under the base model: its exponential is the perplexity."""
    steered_nll: float | None = None
    """Under the steered model."""
    kl: float | None = None
    """KL(steered ‖ base) of the distributions that chose these tokens."""


class FeaturesScanned(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Of a text's tokens that count."""

    id: str
    tokens: int
    features: tuple["FeatureActivity", ...]
    """Those that fired at all, by index."""


class FeatureActivity(msgspec.Struct, frozen=True, array_like=True):
    """One feature on one text, in residual units."""

    index: int
    count: int
    """Tokens at which it fired."""
    total: float
    largest: float


class FeatureDescribed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: str
    decoder_norm: float
    promoted: tuple[tuple[int, float], ...]
    """(token id, logit per unit of strength): the unit decoder row through final norm weights and unembedding."""
    suppressed: tuple[tuple[int, float], ...]
    """Most negative first."""
    neighbours: tuple[tuple[int, float], ...]
    """(feature, cosine of the decoder rows), largest first."""


class SteeringDirection(msgspec.Struct, frozen=True, kw_only=True):
    sae: str
    layer: int
    hook_point: str
    vector: bytes
    """Little-endian float32."""
    norm: float
    varies: bool
    """Other modes are in it: what they add depends on the token, and is not in the vector."""


class DirectionsComputed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: str
    directions: tuple[SteeringDirection, ...]


class Decomposed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    id: str
    features: tuple[tuple[int, float], ...]
    """(feature, strength), largest first."""
    residual: float
    """Share of the vector's length that is left over."""


class SteeringReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of the steering that a sequence really got."""

    fingerprint: str
    tokens_steered: int
    """Positions at which a delta was added."""
    delta_norm_ratio: float
    """Mean over those positions of ‖delta‖ / ‖residual‖ (the largest of the hooks, when there are several)."""

    degraded: str | None = None
    """Why the steering ended before the sequence did."""


SequenceEndReason = Literal["stop", "length", "cancelled"]


class Finished(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The last event of a sequence that did not fail."""

    id: str
    reason: SequenceEndReason
    receipt: SteeringReceipt | None = None
    readings: tuple[Reading, ...] = ()
    """Of the last step, when the token it chose was a stop token (which is not sent)."""
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were there already."""


class Done(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A command with nothing to tell has been obeyed."""

    id: str


class CommandFailed(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The last event of a command or sequence that failed; `code` is one of `errors.BY_CODE`."""

    id: str
    code: str
    message: str
    param: str | None = None


class LogLine(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """What the engine has to say to whoever reads the log: the API process writes it."""

    level: str
    event: str
    time: str
    """ISO 8601, UTC."""
    fields: dict[str, Any]


class EngineDegraded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The engine gave something up to go on answering; nothing comes back by itself."""

    reason: str


FeatureQueryResult = FeatureDescribed | DirectionsComputed | Decomposed
EngineEvent = (
    Started
    | Progress
    | ModelLoaded
    | SaeAttached
    | Done
    | PromptScores
    | Token
    | Finished
    | TextEmbedded
    | AnswerScored
    | FeaturesScanned
    | FeatureQueryResult
    | CommandFailed
    | EngineDegraded
    | LogLine
)
encode = msgspec.msgpack.Encoder().encode
decode_commands = msgspec.msgpack.Decoder(list[Command]).decode
decode_events = msgspec.msgpack.Decoder(list[EngineEvent]).decode
