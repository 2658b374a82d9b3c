"""Sample values of a server, and rendering 80 columns wide."""

from rich.console import Console, RenderableType

from millm.engine.messages import MemoryUse, ModelFacts, SaeFacts
from millm.hardware import Platform
from millm.hub.entries import ModelEntry, SaeEntry
from millm.hub.jobs import DownloadJob, DownloadPreview, DownloadSpec, PreviewFile
from millm.hub.memory_estimate import Estimate
from millm.status import ModelStatus, ServerStatus, SteeringStatus

WIDTH = 80

GEMMA = "google/gemma-2-2b"
SCOPE = "google/gemma-scope-2b-pt-res"
SAE = f"{SCOPE}/layer_20/width_16k/average_l0_71"
COMMIT = "c5ebcd40d208330abc697524c919956e692655cf"

MODEL_ENTRY = ModelEntry(
    id=GEMMA, origin="hub", state="whole", is_verified=True, commit=COMMIT, size=5_228_000_000,
    architecture="Gemma2ForCausalLM", model_type="gemma2", parameters=2_614_341_888, dtype="bfloat16",
    context_length=8192, is_loaded=True,
)  # fmt: skip
SAE_ENTRY = SaeEntry(
    id=SAE, origin="hub", state="whole", is_verified=True, commit=COMMIT, size=302_000_000, format="gemma_scope",
    architecture="jumprelu", width=16_384, d_in=2304, hook_point="blocks.20.hook_resid_post", layer=20, model=GEMMA,
    neuronpedia="https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k", is_attached=True,
)  # fmt: skip
SAE_FACTS = SaeFacts(
    sae=SAE, architecture="jumprelu", layer=20, hook_point="blocks.20.hook_resid_post", features=16_384,
    steerable=True, exclude_special_tokens=True, residual_norm=112.437, variance_explained=0.768, l0=71.3,
    warnings=(), sha256="0" * 64, memory=302_000_000,
)  # fmt: skip
MODEL_FACTS = ModelFacts(
    architecture="Gemma2ForCausalLM", layers=26, width=2304, vocab_size=256_000, context_length=8192, stop_ids=(1,),
    device="cuda:0", dtype="bfloat16", parameters=2_614_341_888, runner="slots", weights="bfloat16",
    memory=MemoryUse(weights=5_228_000_000, kv_cache=3_000_000_000, process=5_890_000_000, free=70_000_000_000),
)  # fmt: skip
STATUS = ServerStatus(
    version="0.1.0", status="ready", cause=None, changing=None, degraded=None, in_flight=3, running=2, waiting=1,
    model=ModelStatus(name=GEMMA, facts=MODEL_FACTS, unloads_in=271.0), saes=(SAE_FACTS,),
    steering=SteeringStatus(profile="yelling", fingerprint="f" * 16),
    platform=Platform(torch="2.13.0", built_for="CUDA 13.0", threads=8, devices=("NVIDIA H100",)),
)  # fmt: skip
EMPTY = ServerStatus(
    version="0.1.0", status="empty", cause=None, changing=None, degraded=None, in_flight=0, running=0, waiting=0,
    model=None, saes=(), steering=None, platform=None,
)  # fmt: skip
ESTIMATE = Estimate(
    model=GEMMA, device="cuda:0", quantization="4bit", dtype="bfloat16", context=8192, slots=8,
    weights=2_120_000_000, kv_cache=436_000_000, kv_cache_all=3_490_000_000, saes=302_000_000,
    activations=91_000_000, overhead=512_000_000, total=3_461_000_000, free=14_200_000_000, verdict="fits",
)  # fmt: skip
SPEC = DownloadSpec(kind="model", repository=GEMMA)
JOB = DownloadJob(
    id="7c1d", asked=SPEC, name=GEMMA, state="running", commit=COMMIT, done=1_210_000_000, total=5_228_000_000,
    files_done=3, files_total=8, speed=24_100_000.0, seconds_left=166.0, created=0.0, updated=1.0,
)  # fmt: skip
PREVIEW = DownloadPreview(
    asked=SPEC, name=GEMMA, commit=COMMIT, files=(PreviewFile(path="config.json", size=818, is_here=False),) * 8,
    size=5_228_000_000, to_download=4_018_000_000, skipped=10_456_000_000, licence="gemma", gated=True,
    link=f"https://huggingface.co/{GEMMA}", architecture="Gemma2ForCausalLM", dtype="bfloat16",
    parameters=2_614_341_888, known_saes=1_104, disk_free=81_000_000_000, disk_reserve=2_147_483_648,
)  # fmt: skip


def render(drawable: RenderableType, width: int = WIDTH) -> str:
    """Without colours, which must not carry information alone."""
    console = Console(width=width, color_system=None, highlight=False, emoji=False, force_terminal=False)
    with console.capture() as captured:
        console.print(drawable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())
