/** What does not fit is said with both numbers, and nothing else is refused. */
import { expect, test } from "vitest";
import { misfit } from "./verdict";

const SAE = { d_in: 576, layer: 20, state: "whole", problem: null, is_attached: false } as const;
const MODEL = { width: 576, layers: 30, generates: true };

test.each([
  [SAE, MODEL, null],
  [{ ...SAE, d_in: null, layer: null }, MODEL, null],
  [{ ...SAE, d_in: 2304 }, MODEL, "It expects width 2304; the model has 576."],
  [{ ...SAE, layer: 30 }, MODEL, "It belongs to layer 30; the model has layers 0 to 29."],
  [SAE, null, "Load a model first."],
  [{ ...SAE, is_attached: true }, MODEL, "It is attached."],
])("%j on %j: %s", (sae, model, told) => expect(misfit(sae, model)).toBe(told));
