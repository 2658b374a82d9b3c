/** What is watched changes by one feature, and by nothing else. */
import { expect, test } from "vitest";
import { toggled } from "./knobs";

const WATCH = {
  sae: "a",
  features: [1],
  top_k: 0,
  tokens: "all",
  when: "both",
  sample_every: null,
  active: true,
} as const;
const all = [{ ...WATCH, features: [1] }];

test("a feature comes and goes", () => {
  expect(toggled(all, "a", 2)).toEqual([{ ...WATCH, features: [1, 2] }]);
  expect(toggled(toggled(all, "a", 2), "a", 2)).toEqual(all);
});

test("another SAE is another entry, and goes with its last feature", () => {
  const two = toggled(all, "b", 7);
  expect(two.map(({ sae, features }) => [sae, features])).toEqual([["a", [1]], ["b", [7]]]); // prettier-ignore
  expect(toggled(two, "b", 7)).toEqual(all);
});

test("an SAE whose strongest features are read stays without its last named one", () => {
  expect(toggled([{ ...WATCH, features: [1], top_k: 5 }], "a", 1)).toEqual([{ ...WATCH, features: [], top_k: 5 }]);
});
