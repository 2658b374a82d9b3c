"""Hook points of a loaded model: find one by name, put a function on it, record what passes.

Knows nothing about SAEs or steering: a tap is a function from a tensor to a tensor.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from millm.errors import InvalidModel, SaeMismatch
from millm.sae.hook_points import (
    LENS_NAMES,
    HookLocation,
    Side,
    find_location,
    hook_locations,
    hook_point_name,
    parse_hook_name,
)

HookFunction = Callable[[Tensor], Tensor | None]
"""x [B, T, width] → the tensor to go on with, or None to leave x as it is."""


class CausalModel(Protocol):
    """What of a Hugging Face model is used here."""

    config: Any

    @property
    def device(self) -> torch.device: ...

    def get_decoder(self) -> Any: ...


@dataclass(frozen=True)
class HookPoint:
    """One tensor of a loaded model: one side of one module of one decoder layer."""

    name: str
    """One name per tensor, e.g. `blocks.20.hook_resid_post`, whichever way it was asked for."""
    layer: int
    kind: str
    module: nn.Module
    side: Side

    def register(self, fn: HookFunction) -> RemovableHandle:
        """Call `fn` with the tensor [B, T, width] in every forward pass, ahead of hooks already there.

        None or the very tensor it was given leaves the pass bit-identical; anything else goes on in its
        place, cast to the model's dtype. What `fn` raises comes out of the model's forward.
        """
        if self.kind == "resid_mid":
            return self.module.register_forward_pre_hook(partial(_write_input, fn), prepend=True, with_kwargs=True)
        if self.side == "input":
            return self.module.register_forward_pre_hook(partial(_replace_input, fn), prepend=True, with_kwargs=True)
        # prepend: transformers' own recorders of hidden states then see what the rest of the model sees.
        return self.module.register_forward_hook(partial(_replace_output, fn), prepend=True)


def resolve_hook_point(model: CausalModel, name: str) -> HookPoint:
    """The hook point a name means in this model.

    Raises SaeMismatch for a name we cannot read, a layer the model does not have or a tensor its family
    does not compute, each with what there is instead.
    """
    asked_layer, asked_kind = parse_hook_name(name)
    layers = decoder_layers(model)
    if asked_layer >= len(layers):
        raise SaeMismatch(
            f"{name!r}: this model has layers 0 to {len(layers) - 1}, there is no layer {asked_layer}",
            param="layer",
        )
    table = hook_locations(_text_config(model))
    found = find_location(asked_kind, table)
    module = _submodule(layers[asked_layer], found[1]) if found else None
    if found is None or module is None:
        raise _missing_hook_error(name, model, layers[asked_layer], table)
    kind, place = found
    return HookPoint(hook_point_name(asked_layer, kind), asked_layer, kind, module, place.side)


def decoder_layers(model: CausalModel) -> nn.ModuleList:
    """The decoder layers, wherever they are kept: the outermost list of the length the config says."""
    count = _text_config(model).num_hidden_layers
    lists = [
        (path.count("."), module)
        for path, module in model.get_decoder().named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise InvalidModel(f"{_text_config(model).model_type!r} models have no list of {count} decoder layers to hook")
    return min(lists, key=lambda found: found[0])[1]


def capture(model: CausalModel, points: Iterable[HookPoint], ids: Sequence[int]) -> dict[str, Tensor]:
    """What passes the points in one forward pass over one row of ids: {name: [T, width]} in fp32.

    Raises SaeMismatch for a point that is not reached or whose tensor is not [batch, tokens, width].
    """
    names: list[str] = []
    seen: dict[str, Tensor] = {}
    with torch.no_grad(), ExitStack() as hooked:
        for point in points:
            names.append(point.name)
            hooked.enter_context(point.register(partial(_capture_tensor, seen, point.name)))
        # The decoder without its head: no [T, vocabulary] logits for nothing.
        model.get_decoder()(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    for name in names:
        if name not in seen:
            raise SaeMismatch(f"{name!r} is not reached when this model runs, so nothing can be attached there")
    return seen


def width_at(model: CausalModel, point: HookPoint) -> int:
    """The width of the tensor at a point, measured by running four tokens through the model."""
    return capture(model, [point], range(4))[point.name].shape[-1]


def _text_config(model: CausalModel) -> Any:
    return model.config.get_text_config(decoder=True)


def _submodule(layer: nn.Module, location: HookLocation) -> nn.Module | None:
    """The module at a path, or None where this architecture (or this variant of it) has no such module."""
    found: object = layer
    for part in filter(None, location.path.split(".")):
        found = getattr(found, part, None)
    return found if isinstance(found, nn.Module) else None


def _missing_hook_error(name: str, model: CausalModel, layer: nn.Module, table: dict[str, HookLocation]) -> SaeMismatch:
    there = [LENS_NAMES[kind] for kind, place in table.items() if _submodule(layer, place)]
    return SaeMismatch(
        f"{name!r}: {_text_config(model).model_type} models do not compute it; they have {', '.join(there)}",
        param="hook_point",
    )


def _capture_tensor(captured: dict[str, Tensor], name: str, x: object) -> None:
    if not isinstance(x, Tensor) or x.dim() != 3:
        raise SaeMismatch(f"{name!r} is not a tensor of [batch, tokens, width] in this model, so no SAE fits there")
    # A copy: some architectures (Falcon) go on to add to the very tensor in place.
    captured[name] = x[0].to(torch.float32, copy=True)  # [T, width]


def _replace_output(fn: HookFunction, _module: nn.Module, _args: Any, output: Any) -> Any:
    """Layers return a tensor or a tuple that begins with it; what follows in the tuple is passed on."""
    x = output[0] if isinstance(output, tuple) else output
    y = fn(x)
    if y is None or y is x:
        return None
    y = y.to(x.dtype)
    return (y, *output[1:]) if isinstance(output, tuple) else y


def _replace_input(fn: HookFunction, _module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    x = _first_input(args, kwargs)
    y = fn(x)
    if y is None or y is x:
        return None
    y = y.to(x.dtype)
    return ((y, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": y})


def _write_input(fn: HookFunction, _module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    """Mid-layer the norm's input is the residual stream itself, which the layer adds to later: write into it.

    Replacing the argument would steer the MLP alone and leave the stream as it was.
    """
    x = _first_input(args, kwargs)
    y = fn(x)
    if y is not None and y is not x:
        x.copy_(y)


def _first_input(args: Any, kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")
