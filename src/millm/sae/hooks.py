"""Hook points of a loaded model: resolve a name, register a function, capture tensors. Knows no SAE or steering."""

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
"""x [B, T, width] → the tensor to continue with, or None to leave x unchanged."""


class CausalModel(Protocol):
    """The part of a Hugging Face model that is used here."""

    config: Any

    @property
    def device(self) -> torch.device: ...

    def get_decoder(self) -> Any: ...


@dataclass(frozen=True)
class HookPoint:
    """One tensor of a loaded model: one side of one module of one decoder layer."""

    name: str
    """Canonical: one name per tensor, e.g. `blocks.20.hook_resid_post`."""
    layer: int
    kind: str
    module: nn.Module
    side: Side

    def register(self, fn: HookFunction) -> RemovableHandle:
        """Call `fn` with the tensor [B, T, width] in every forward pass, before hooks that are registered already.

        If `fn` returns None or its argument, the pass stays bit-identical; another tensor replaces the argument, cast
        to the model's dtype. Exceptions of `fn` leave the model's forward.
        """
        if self.kind == "resid_mid":
            return self.module.register_forward_pre_hook(partial(_write_input, fn), prepend=True, with_kwargs=True)
        if self.side == "input":
            return self.module.register_forward_pre_hook(partial(_replace_input, fn), prepend=True, with_kwargs=True)
        # prepend: transformers' own recorders of hidden states then see the same tensor as the next layer.
        return self.module.register_forward_hook(partial(_replace_output, fn), prepend=True)


def resolve_hook_point(model: CausalModel, name: str) -> HookPoint:
    """The hook point of a name in this model.

    Raises SaeMismatch, with the alternatives, for an invalid name, a layer that the model does not have, or a tensor
    that its family does not compute.
    """
    layer, requested_kind = parse_hook_name(name)
    layers = decoder_layers(model)
    if layer >= len(layers):
        raise SaeMismatch(
            f"{name!r}: this model has layers 0 to {len(layers) - 1}, there is no layer {layer}", param="layer"
        )
    table = hook_locations(_text_config(model))
    kind_and_location = find_location(requested_kind, table)
    module = _submodule(layers[layer], kind_and_location[1]) if kind_and_location else None
    if kind_and_location is None or module is None:
        raise _missing_hook_error(name, model, layers[layer], table)
    kind, location = kind_and_location
    return HookPoint(hook_point_name(layer, kind), layer, kind, module, location.side)


def decoder_layers(model: CausalModel) -> nn.ModuleList:
    """The decoder layers: the outermost module list of the length in the config."""
    count = _text_config(model).num_hidden_layers
    lists = [
        (path.count("."), module)
        for path, module in model.get_decoder().named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise InvalidModel(f"{_text_config(model).model_type!r} models have no list of {count} decoder layers to hook")
    return min(lists, key=lambda depth_and_list: depth_and_list[0])[1]


def capture(model: CausalModel, points: Iterable[HookPoint], ids: Sequence[int]) -> dict[str, Tensor]:
    """The tensors at the points in one forward pass over one row of ids: {name: [T, width]} in fp32.

    Raises SaeMismatch for a point that is not reached or whose tensor is not [batch, tokens, width].
    """
    names: list[str] = []
    captured: dict[str, Tensor] = {}
    with torch.no_grad(), ExitStack() as handles:
        for point in points:
            names.append(point.name)
            handles.enter_context(point.register(partial(_capture_tensor, captured, point.name)))
        # The decoder without its head computes no [T, vocabulary] logits.
        model.get_decoder()(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False)
    for name in names:
        if name not in captured:
            raise SaeMismatch(f"{name!r} is not reached when this model runs, so nothing can be attached there")
    return captured


def width_at(model: CausalModel, point: HookPoint) -> int:
    """The width of the tensor at a point, measured by running four tokens through the model."""
    return capture(model, [point], range(4))[point.name].shape[-1]


def _text_config(model: CausalModel) -> Any:
    return model.config.get_text_config(decoder=True)


def _submodule(layer: nn.Module, location: HookLocation) -> nn.Module | None:
    """The module at a path, or None when this architecture (or variant) has no such module."""
    module: object = layer
    for part in filter(None, location.path.split(".")):
        module = getattr(module, part, None)
    return module if isinstance(module, nn.Module) else None


def _missing_hook_error(name: str, model: CausalModel, layer: nn.Module, table: dict[str, HookLocation]) -> SaeMismatch:
    available = [LENS_NAMES[kind] for kind, location in table.items() if _submodule(layer, location)]
    return SaeMismatch(
        f"{name!r}: {_text_config(model).model_type} models do not compute it; they have {', '.join(available)}",
        param="hook_point",
    )


def _capture_tensor(captured: dict[str, Tensor], name: str, x: object) -> None:
    if not isinstance(x, Tensor) or x.dim() != 3:
        raise SaeMismatch(f"{name!r} is not a tensor of [batch, tokens, width] in this model, so no SAE fits there")
    # A copy: some architectures (Falcon) later add to this tensor in place.
    captured[name] = x[0].to(torch.float32, copy=True)  # [T, width]


def _replace_output(fn: HookFunction, _module: nn.Module, _args: Any, output: Any) -> Any:
    """Layers return a tensor, or a tuple that starts with it; the rest of the tuple stays unchanged."""
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
    """For `resid_mid`: the norm's input is the residual stream itself, to which the layer adds later.

    Replacing the argument would steer the MLP alone, so write into the tensor.
    """
    x = _first_input(args, kwargs)
    y = fn(x)
    if y is not None and y is not x:
        x.copy_(y)


def _first_input(args: Any, kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs.get("hidden_states")
