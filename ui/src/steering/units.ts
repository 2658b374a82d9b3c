/** A strength in another unit: the same push, said differently. */
import type { Knob } from "@/lib/knobs";

export type Unit = "raw" | "norm" | "max_act";

export const UNITS: readonly { value: Unit; label: string }[] = [
  { value: "raw", label: "raw" },
  { value: "norm", label: "× norm" },
  { value: "max_act", label: "× max activation" },
];

/** Residual units of strength 1. */
export function rawPerUnit(unit: Unit, norm: number, maxAct: number | null): number {
  if (unit === "norm") return norm;
  return unit === "max_act" ? (maxAct ?? 1) : 1;
}

/** As the server has worked it out; where it has not, the number stays. */
export const inUnit = (knob: Pick<Knob, "raw" | "norm" | "max_act" | "strength">, unit: Unit): number =>
  knob[unit] ?? knob.strength;
