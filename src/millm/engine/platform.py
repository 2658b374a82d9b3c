"""What the engine runs on: told once, so that nobody else has to import torch to know."""

import torch

from millm.hardware import Platform


def platform_facts() -> Platform:
    return Platform(
        torch=str(torch.__version__),
        built_for=_built_for(),
        threads=torch.get_num_threads(),
        devices=tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())),
    )


def _built_for() -> str | None:
    if torch.version.cuda:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip else None
