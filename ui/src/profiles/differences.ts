/** What two profiles say differently, feature by feature. */
import type { Schemas } from "@/lib/api";

type Feature = Schemas["ProfileFeature"];

export interface Difference {
  sae: string | null;
  index: number;
  label: string | null;
  /** As read, such as "80 raw"; null: it is not there. */
  before: string | null;
  after: string | null;
}

const keyOf = ({ sae, index }: Feature) => `${sae ?? ""} ${index}`;

function said({ mode = "add", strength = 0, unit = "raw" }: Feature): string {
  if (mode === "ablate") return "ablate";
  if (mode === "scale") return `scale × ${strength}`;
  return `${mode} ${strength} ${unit}`;
}

/** Only those that differ, by SAE and index. */
export function differences(before: readonly Feature[], after: readonly Feature[]): Difference[] {
  const [old, next] = [before, after].map((all) => new Map(all.map((feature) => [keyOf(feature), feature])));
  return [...new Set([...old!.keys(), ...next!.keys()])]
    .map((key) => {
      const [was, is] = [old!.get(key), next!.get(key)];
      const { sae = null, index, label = null } = (is ?? was)!;
      return { sae, index, label, before: was ? said(was) : null, after: is ? said(is) : null };
    })
    .filter(({ before, after }) => before !== after)
    .sort((one, other) => (one.sae ?? "").localeCompare(other.sae ?? "") || one.index - other.index);
}
