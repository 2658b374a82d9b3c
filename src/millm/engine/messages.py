"""Messages between the API process and the engine process: msgpack over a pipe, with token ids instead of text."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from millm.hardware import Platform
from millm.sae.steering import Steering, Watch

Quantization = Literal["none", "8bit", "4bit"]
DeviceMap = Literal["single", "auto"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AttentionImplementation = Literal["auto", "eager", "sdpa", "flash_attention_2"]
Pooling = Literal["mean", "cls", "lasttoken", "max"]  # Names of sentence-transformers
IndexedValues = tuple[tuple[int, float], ...]  # (token id or feature index, value), best first
KV_CACHE_MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.25}
"""Share of the memory left after the load that keys and values may use; a CPU's memory serves other programs too."""


class Message(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A command with its own id, or an event with the id of the command it answers."""

    id: str


class TextMessage(Message, frozen=True, tag=True, kw_only=True):
    """A command whose token ids belong to one model."""

    deadline_seconds: float | None = None  # Counted from the arrival in the engine
    model: str = ""  # `ModelFacts.id` of the load whose token ids these are; the engine refuses those of another load


class LoadModel(Message, frozen=True, kw_only=True):
    """Load a folder of Hugging Face weights in place of the loaded model."""

    path: str
    device: str = "auto"
    dtype: Dtype = "auto"
    cpu_threads: int | None = None
    quantization: Quantization = "none"  # bitsandbytes' 8-bit or 4-bit weights
    cpu_int8: bool = False  # On a CPU, unquantized linear layers compute in 8 bits where that is faster
    runner: Literal["auto", "slots", "plain"] = "auto"
    graphs: bool = False  # Replay decode steps as CUDA graphs where the device and the self-test allow it
    slots: int = 32  # Maximum number of sequences that run at once
    context: int | None = None  # Limit of a sequence's length in tokens, below the model's own
    kv_cache_bytes: int | None = None  # None: `KV_CACHE_MEMORY_SHARE` of the free memory
    special_ids: tuple[int, ...] = ()  # Token ids that `skip: special` does not steer
    generates: bool = True  # False for a checkpoint without a language-model head (an encoder), which can only embed
    device_map: DeviceMap = "single"
    """`auto`: accelerate spreads the layers over several devices, and one sequence runs at a time."""
    attention: AttentionImplementation = "auto"
    """transformers' implementation; `auto`: the model's default, or millm_gqa where that computes the same."""
    trust_remote_code: bool = False  # Allow the checkpoint's own Python code; the operator has named this repository
    unload_first: bool = False  # Unload the current model before reading the files: memory does not hold both


class UnloadModel(Message, frozen=True, kw_only=True):
    """Release the model and every SAE; sequences in flight fail."""


class AttachSae(Message, frozen=True, kw_only=True):
    """Read an SAE, check that it fits the model, calibrate it and register its hook."""

    sae: str  # Name of the attachment in requests
    path: str
    canonical_root: str  # Folder of memory-mapped canonical copies
    hook_point: str | None = None  # Overrides the SAE's own configuration, e.g. `blocks.20.hook_resid_post`.
    calibration_ids: tuple[tuple[int, ...], ...]
    """Token ids of bundled texts on which residual norm and reconstruction are measured."""
    model_name: str  # Name of the loaded model, compared with the model that the SAE was trained on
    allow_model_mismatch: bool = False  # Attach an SAE of another model of the same width, with a warning
    replaces: str | None = None  # Attachment to detach in the same step, once this SAE fits


class DetachSae(Message, frozen=True, kw_only=True):
    """Close an SAE to new sequences; its hook is removed when the last running one has finished."""

    sae: str


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """Defaults are OpenAI's."""

    temperature: float = 1.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    repetition_penalty: float = 1.0
    """Over prompt and output: divides positive logits, multiplies negative ones (CTRL; transformers)."""
    min_tokens: int = 0  # Minimum number of output tokens before a stop token
    seed: int | None = None
    logprobs: int | None = None  # Number of most likely tokens to report beside the sampled one; None: no logprobs


class Generate(TextMessage, frozen=True, kw_only=True):
    """One sequence to continue, with its own sampling, steering and watches."""

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams = SamplingParams()
    stop_ids: tuple[int, ...] = ()
    steering: Steering | None = None
    watch: tuple[Watch, ...] = ()
    follows_active: bool = False  # A later `SetActiveSteering` applies to this sequence too, from its next token
    grammar: str | None = None  # Constraint on the output in llguidance's grammar format (`text/json_schema.py`)
    prompt_logprobs: int | None = None  # Also report logprobs of the prompt's tokens, each with this many alternatives


class Embed(TextMessage, frozen=True, kw_only=True):
    """One text to embed, unsteered; SAEs may watch it."""

    tokens: tuple[int, ...]
    pooling: Pooling = "mean"
    watch: tuple[Watch, ...] = ()


class ScoreAnswer(TextMessage, frozen=True, kw_only=True):
    """Log-likelihood of an answer under the base model, and KL(steered ‖ base) along it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]  # At least one token
    steering: Steering | None = None  # None: only the base model is evaluated


class ScanFeatures(TextMessage, frozen=True, kw_only=True):
    """Activity of every feature on a text, without position 0 and special tokens."""

    sae: str
    tokens: tuple[int, ...]
    attachment: str = ""  # As in `Watch`


class DescribeFeature(Message, frozen=True, kw_only=True):
    """Logit lens and nearest neighbours of a feature's decoder row."""

    sae: str
    index: int
    tokens: int = 10  # Number of promoted, and of suppressed, tokens
    neighbours: int = 10


class ComputeDirections(Message, frozen=True, kw_only=True):
    """Vectors that a steering's features of mode `add` add at every token."""

    steering: Steering


class Decompose(Message, frozen=True, kw_only=True):
    """Approximate a vector at an SAE's hook point by a few of its features (orthogonal matching pursuit)."""

    sae: str
    vector: bytes  # Little-endian float32, in residual units
    most: int = 16  # Maximum number of features


class SetActiveSteering(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Steering of the sequences with `follows_active`, from their next token."""

    steering: Steering | None


FaultPoint = Literal["load", "attach", "prefill", "decode"]


class InjectFault(Message, frozen=True, kw_only=True):
    """Fail on purpose, in tests (`engine/fault_injection.py`)."""

    point: FaultPoint
    kind: Literal["oom", "error", "hang"]
    after: int = 0  # Number of passes through the point before the first failure
    times: int = 1


class Cancel(Message, frozen=True, kw_only=True):
    """Stop a sequence at the next step; its `Finished` follows."""


FeatureQuery = DescribeFeature | ComputeDirections | Decompose  # Answered between two steps, without a forward pass
TextCommand = Embed | ScoreAnswer | ScanFeatures  # Answered by forward passes of their own, at most one text per step
ControlCommand = LoadModel | UnloadModel | AttachSae | DetachSae | FeatureQuery | InjectFault
"""Answered by any number of `Progress` and one result."""
Command = ControlCommand | Generate | TextCommand | SetActiveSteering | Cancel


class Started(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """First event of the process."""

    platform: Platform


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device, measured after the load."""

    weights: int
    kv_cache: int
    """Budget for keys and values, allocated on first use."""
    process: int
    """On a GPU torch's allocations there, else the process's resident memory."""
    free: int


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of the loaded model."""

    id: str = ""
    """Identifies the load."""
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
    """Result of the self-test: `slots + graphs`, `slots` or `plain`; `encoder` for a model that only embeds."""
    runner_reason: str = ""
    """Why the model did not get a faster runner."""
    slots: int = 1
    """Maximum number of sequences that run at once."""
    generates: bool = True
    """False for an encoder, which can only embed."""
    memory: MemoryUse | None = None
    weights: str = ""
    """Number format of the weights, e.g. `float32`, `int8 on CPU`, `bitsandbytes 4-bit`."""


class SaeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Properties of an attached SAE."""

    id: str = ""
    """Identifies the attachment."""
    sae: str
    architecture: str
    layer: int
    hook_point: str
    features: int
    steerable: bool
    """False for transcoders: their output belongs to another hook point."""
    exclude_special_tokens: bool
    residual_norm: float
    """Median ‖x‖ at the hook over the calibration texts without position 0: the unit `norm`."""
    variance_explained: float | None
    l0: float
    """Mean number of active features per token of the calibration texts."""
    warnings: tuple[str, ...]
    sha256: str
    memory: int = 0
    """Bytes on the device."""
    sample_every: int = 1
    """Default interval, in positions, at which `top_k` encodes all features."""


class Progress(Message, frozen=True, kw_only=True):
    stage: str
    done: int
    total: int


ReportProgress = Callable[[str, int, int], None]  # Called with stage, done and total


class ModelLoaded(Message, frozen=True, kw_only=True):
    facts: ModelFacts


class SaeAttached(Message, frozen=True, kw_only=True):
    facts: SaeFacts


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """Activations of one SAE at one token."""

    sae: str
    position: int  # Index of the token in prompt + completion
    values: tuple[float, ...]  # One per watched feature, in the watch's order
    top: IndexedValues = ()  # (feature, activation), largest first
    after: tuple[float, ...] = ()  # `values` after steering, for watches with `when: both`
    top_after: IndexedValues = ()


class Token(Message, frozen=True, kw_only=True):
    token: int
    logprob: float | None = None  # Natural log of the model's probability, before penalties, bias and temperature
    top: IndexedValues = ()
    readings: tuple[Reading, ...] = ()  # Of the tokens fed in this step: the prompt at first, then each sampled token


class PromptScores(Message, frozen=True, kw_only=True):
    """Logprobs of the prompt's next tokens, in order from position 1 on, as many as the step computed."""

    scores: tuple["TokenScore", ...]


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """Logprob of one prompt token."""

    logprob: float | None
    top: IndexedValues = ()


class TextEmbedded(Message, frozen=True, kw_only=True):
    vector: bytes  # Little-endian float32, of unit length
    readings: tuple[Reading, ...] = ()


class AnswerScored(Message, frozen=True, kw_only=True):
    """Means over the answer's tokens, in nats."""

    tokens: int
    nll: float  # −ln p under the base model; its exponential is the perplexity
    steered_nll: float | None = None
    kl: float | None = None  # KL(steered ‖ base) of the distributions at these tokens


class FeaturesScanned(Message, frozen=True, kw_only=True):
    tokens: int  # Number of tokens that were encoded
    features: tuple["FeatureActivity", ...]  # Features with an activation above 0, by index


class FeatureActivity(msgspec.Struct, frozen=True, array_like=True):
    """One feature on one text, in residual units."""

    index: int
    count: int  # Number of tokens with an activation above 0
    total: float
    largest: float


class FeatureDescribed(Message, frozen=True, kw_only=True):
    decoder_norm: float
    promoted: IndexedValues
    """(token id, logit per unit of strength): the unit decoder row through final norm and unembedding."""
    suppressed: IndexedValues  # Most negative first
    neighbours: IndexedValues  # (feature, cosine of the decoder rows), largest first


class SteeringDirection(msgspec.Struct, frozen=True, kw_only=True):
    sae: str
    layer: int
    hook_point: str
    vector: bytes  # Little-endian float32
    norm: float
    varies: bool
    """The steering also has features of other modes, whose deltas depend on the token and are not in `vector`."""


class DirectionsComputed(Message, frozen=True, kw_only=True):
    directions: tuple[SteeringDirection, ...]


class Decomposed(Message, frozen=True, kw_only=True):
    features: IndexedValues  # (feature, strength), largest first
    residual: float  # Length of the remainder, relative to the vector's


class SteeringReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """The steering that was applied to a sequence."""

    fingerprint: str
    tokens_steered: int  # Number of positions at which a delta was added
    delta_norm_ratio: float  # Mean over those positions of ‖delta‖ / ‖residual‖; with several hooks, the largest mean
    degraded: str | None = None  # Why steering or watching was turned off before the sequence finished


SequenceEndReason = Literal["stop", "length", "cancelled"]


class Finished(Message, frozen=True, kw_only=True):
    """Last event of a sequence that did not fail."""

    reason: SequenceEndReason
    receipt: SteeringReceipt | None = None
    readings: tuple[Reading, ...] = ()  # Of a last step that sampled a stop token, for which no `Token` is sent
    cached_tokens: int = 0  # Number of prompt tokens whose keys and values were reused


class Done(Message, frozen=True, kw_only=True):
    """A command without a result has succeeded."""


class CommandFailed(Message, frozen=True, kw_only=True):
    """Last event of a command or sequence that failed; `code` is one of `errors.BY_CODE`."""

    code: str
    message: str
    param: str | None = None


class LogLine(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A line for the log, which the API process writes."""

    level: str
    event: str
    time: str  # ISO 8601, UTC
    fields: dict[str, Any]


class EngineDegraded(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The engine turned every SAE off to free memory; they stay off."""

    reason: str


FeatureQueryResult = FeatureDescribed | DirectionsComputed | Decomposed
ControlResult = ModelLoaded | SaeAttached | FeatureQueryResult | Done
SequenceEvent = PromptScores | Token | Finished | TextEmbedded | AnswerScored | FeaturesScanned | CommandFailed
EngineEvent = Started | Progress | ControlResult | SequenceEvent | EngineDegraded | LogLine
encode = msgspec.msgpack.Encoder().encode
decode_commands = msgspec.msgpack.Decoder(list[Command]).decode
decode_events = msgspec.msgpack.Decoder(list[EngineEvent]).decode
