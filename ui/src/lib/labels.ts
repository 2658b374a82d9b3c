/** What the features of an SAE are called: the whole file once, for lists that name many of them. */
import { queryOptions, useQuery } from "@tanstack/react-query";
import { failureOf } from "./failure";
import { authorization } from "./key";

export interface Label {
  index: number;
  label: string;
  max_act: number | null;
  density: number | null;
}

export const labels = (sae: string) =>
  queryOptions({
    queryKey: ["labels", sae],
    queryFn: async () => {
      const path = `/api/features/labels?${new URLSearchParams({ sae })}`;
      const response = await fetch(path, { headers: authorization() });
      if (!response.ok) throw failureOf(await response.json().catch(() => null), response);
      return labelsOf(await response.text());
    },
    enabled: sae !== "",
  });

/** A line per feature, as the server writes it: what is not known is left out. */
export const labelsOf = (jsonl: string): ReadonlyMap<number, Label> =>
  new Map(
    jsonl
      .split("\n")
      .filter(Boolean)
      .map((line) => ({ max_act: null, density: null, ...(JSON.parse(line) as Pick<Label, "index" | "label">) }))
      .map((label) => [label.index, label]),
  );

const NONE: ReadonlyMap<number, Label> = new Map();

export const useLabels = (sae: string): ReadonlyMap<number, Label> => useQuery(labels(sae)).data ?? NONE;
