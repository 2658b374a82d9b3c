"""Failures on order, for tests: armed by a message, honoured only under `MILLM_TESTING_FAULTS=1`."""

import os
import time

import torch
from transformers import PreTrainedModel

from millm.engine.messages import Fault, FaultPoint
from millm.errors import InvalidRequest
from millm.sae.hooks import decoder_layers

HANG_SECONDS = 3600.0


class Faults:
    def __init__(self) -> None:
        self._allowed = os.environ.get("MILLM_TESTING_FAULTS") == "1"
        self._armed: dict[FaultPoint, Fault] = {}
        self._passed: dict[FaultPoint, int] = {}
        self.point: FaultPoint = "prefill"
        """What the pass that runs now is."""

    def watch(self, model: PreTrainedModel) -> None:
        """Passes fail in the middle of the model: half of its layers have written their keys and values by then."""
        if self._allowed:
            layers = decoder_layers(model)
            layers[len(layers) // 2].register_forward_pre_hook(lambda _module, _args: self.pass_by(self.point))

    def arm(self, fault: Fault) -> None:
        """Raises InvalidRequest unless the process was started for tests."""
        if not self._allowed:
            raise InvalidRequest("faults are injected only with MILLM_TESTING_FAULTS=1")
        self._armed[fault.point] = fault
        self._passed[fault.point] = 0

    def pass_by(self, point: FaultPoint) -> None:
        """Do here what was armed for here, if it is its turn."""
        fault = self._armed.get(point)
        if fault is None:
            return
        self._passed[point] += 1
        if self._passed[point] <= fault.after:
            return
        if self._passed[point] >= fault.after + fault.times:
            del self._armed[point]
        match fault.kind:
            case "oom":
                raise torch.OutOfMemoryError("injected")
            case "error":
                raise RuntimeError("injected")
            case "hang":
                time.sleep(HANG_SECONDS)
