/** A slider's place and the strength it stands for: symmetric-logarithmic, exact at nought and at both ends.
 *
 * Small strengths matter most, and both signs have to be reached: place p of -1…1 is
 * sign(p) · (range / FINENESS) · ((1 + FINENESS)^|p| − 1).
 */
const FINENESS = 100;

export function strengthAt(place: number, range: number): number {
  if (place === 0 || Math.abs(place) === 1) return place * range;
  return (Math.sign(place) * range * (Math.pow(1 + FINENESS, Math.abs(place)) - 1)) / FINENESS;
}

export function placeOf(strength: number, range: number): number {
  const share = Math.min(1, Math.abs(strength) / range);
  return Math.sign(strength) * (Math.log1p(FINENESS * share) / Math.log1p(FINENESS));
}

/** How far a slider goes, in residual units: to likely incoherent, and in any case to what is set now. */
export const rangeOf = (norm: number, maxAct: number | null, now: number): number =>
  Math.max(1.5 * norm, 4 * (maxAct ?? 0), Math.abs(now));

export type Zone = "subtle" | "usual" | "strong" | "likely incoherent";

/** By the length of what is added, as a share of the usual residual norm (reference: steering.md's guide). */
export function zoneOf(share: number): Zone {
  const size = Math.abs(share);
  if (size < 0.2) return "subtle";
  if (size <= 0.7) return "usual";
  return size <= 1 ? "strong" : "likely incoherent";
}

/** Where the zones end, as places of the slider from -1 to 1, the smallest first; those beyond its range are not there. */
export const zoneEnds = (range: number, share: number): number[] =>
  [0.2, 0.7, 1]
    .map((end) => end / share)
    .filter((strength) => strength < range)
    .flatMap((strength) => [placeOf(-strength, range), placeOf(strength, range)])
    .sort((one, other) => one - other);

/** Three digits are what a hand on a slider means. */
export const rounded = (strength: number): number => Number(strength.toPrecision(3));
