/** Whether an SAE fits the model that is loaded, as far as its files say: told before it is attached. */
import type { Schemas } from "@/lib/api";

type Sae = Pick<Schemas["SaeEntry"], "d_in" | "layer" | "state" | "problem" | "is_attached">;
type Model = Pick<Schemas["ModelFacts"], "width" | "layers" | "generates">;

/** One sentence why it cannot be attached; null: nothing speaks against it. */
export function misfit(sae: Sae, model: Model | null): string | null {
  if (sae.state !== "whole") return sae.problem ?? "Its files are not whole.";
  if (sae.is_attached) return "It is attached.";
  if (!model) return "Load a model first.";
  if (sae.d_in !== null && sae.d_in !== model.width)
    return `It expects width ${sae.d_in}; the model has ${model.width}.`;
  if (sae.layer !== null && sae.layer >= model.layers)
    return `It belongs to layer ${sae.layer}; the model has layers 0 to ${model.layers - 1}.`;
  return null;
}
