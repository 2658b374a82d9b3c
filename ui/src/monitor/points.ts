/** Samples as the points of a chart, with a gap where another request begins. */
import type { AlignedData } from "uplot";
import type { Sample } from "@/lib/activity";

export function pointsOf(samples: readonly Sample[]): AlignedData {
  const [x, value, after]: [number[], (number | null)[], (number | null)[]] = [[], [], []];
  const point = (at: number | null, later: number | null) => {
    x.push(x.length);
    value.push(at);
    after.push(later);
  };
  samples.forEach((sample, at) => {
    if (at > 0 && samples[at - 1]!.request !== sample.request) point(null, null);
    point(sample.value, sample.after);
  });
  return [x, value, after];
}
