"""Injected failures for tests: armed by `InjectFault`, and only under `MILLM_TESTING_FAULTS=1`."""

import os
import time

import torch
from transformers import PreTrainedModel

from millm.engine.messages import FaultPoint, InjectFault
from millm.errors import InvalidRequest
from millm.sae.hooks import decoder_layers

HANG_SECONDS = 3600.0


class FaultInjector:
    def __init__(self) -> None:
        self._is_enabled = os.environ.get("MILLM_TESTING_FAULTS") == "1"
        self._armed: dict[FaultPoint, InjectFault] = {}
        self._pass_counts: dict[FaultPoint, int] = {}
        self.current_point: FaultPoint = "prefill"  # Kind of the current forward pass

    def install_hook(self, model: PreTrainedModel) -> None:
        """Let passes fail in the middle layer, when half of the layers have written their keys and values."""
        if self._is_enabled:
            layers = decoder_layers(model)
            layers[len(layers) // 2].register_forward_pre_hook(
                lambda _module, _args: self.fail_if_armed(self.current_point)
            )

    def arm(self, fault: InjectFault) -> None:
        """Raises InvalidRequest unless the process was started for tests."""
        if not self._is_enabled:
            raise InvalidRequest("faults are injected only with MILLM_TESTING_FAULTS=1")
        self._armed[fault.point] = fault
        self._pass_counts[fault.point] = 0

    def fail_if_armed(self, point: FaultPoint) -> None:
        """Called at `point`; fails or hangs if a fault is armed there and due."""
        fault = self._armed.get(point)
        if fault is None:
            return
        self._pass_counts[point] += 1
        if self._pass_counts[point] <= fault.after:
            return
        if self._pass_counts[point] >= fault.after + fault.times:
            del self._armed[point]
        match fault.kind:
            case "oom":
                raise torch.OutOfMemoryError("injected")
            case "error":
                raise RuntimeError("injected")
            case "hang":
                time.sleep(HANG_SECONDS)
