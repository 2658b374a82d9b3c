/** What fired in one request, feature by feature: of those watched by name, and of the strongest at each token. */
import type { Schemas } from "@/lib/api";

/** A token as it is read back: pairs of index and activation are lists there. */
export type Tracked = Omit<Schemas["TrackedToken"], "top" | "top_after"> & { top?: number[][]; top_after?: number[][] };

export interface Fired {
  index: number;
  /** Whether every token's activation is known; else only where it was among the strongest. */
  isWatched: boolean;
  max: number;
  /** Over the tokens at which it is known. */
  mean: number;
  /** The tokens at which it is above 0. */
  count: number;
  known: number;
}

/** The activation of a feature at a token; null where it was neither watched nor among the strongest. */
export function valueAt(token: Tracked, feature: number, isAfter = false): number | null {
  const [values, top] = isAfter ? [token.after, token.top_after] : [token.values, token.top];
  const at = token.features.indexOf(feature);
  if (at >= 0) return values?.[at] ?? null;
  return top?.find(([index]) => index === feature)?.[1] ?? null;
}

/** Those watched first, then by their largest activation. */
export function firedIn(tokens: readonly Tracked[]): Fired[] {
  const watched = new Set(tokens.flatMap((token) => token.features));
  const all = new Set([...watched, ...tokens.flatMap((token) => (token.top ?? []).map(([index]) => index!))]);
  return [...all]
    .map((index) => {
      const values = tokens.map((token) => valueAt(token, index)).filter((value) => value !== null);
      const sum = values.reduce((total, value) => total + value, 0);
      return {
        index,
        isWatched: watched.has(index),
        max: values.length ? Math.max(...values) : 0,
        mean: values.length ? sum / values.length : 0,
        count: values.filter((value) => value > 0).length,
        known: values.length,
      };
    })
    .sort((one, other) => Number(other.isWatched) - Number(one.isWatched) || other.max - one.max);
}

/** The tokens of each SAE and each choice (or input) apart. */
export function partsOf(all: readonly Tracked[]): Tracked[][] {
  const parts = new Map<string, Tracked[]>();
  for (const token of all) {
    const key = `${token.index} ${token.sae}`;
    parts.set(key, [...(parts.get(key) ?? []), token]);
  }
  return [...parts.values()];
}
