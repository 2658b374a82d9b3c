/** Two profiles side by side. */
import { expect, test } from "vitest";
import { differences } from "./differences";

test("what is there twice alike is no difference, whatever is left out", () => {
  expect(differences([{ index: 3, strength: 2 }], [{ index: 3, strength: 2, unit: "raw", mode: "add" }])).toEqual([]);
});

test("changed, added and taken away, in the order of their indexes", () => {
  const before = [
    { index: 9, strength: 1 },
    { index: 3, strength: 2 },
  ];
  const after = [
    { index: 3, strength: 2, unit: "norm" as const, label: "dogs" },
    { index: 5, mode: "ablate" as const },
  ];
  expect(differences(before, after)).toEqual([
    { sae: null, index: 3, label: "dogs", before: "add 2 raw", after: "add 2 norm" },
    { sae: null, index: 5, label: null, before: null, after: "ablate" },
    { sae: null, index: 9, label: null, before: "add 1 raw", after: null },
  ]);
});

test("the same index of another SAE is another feature", () => {
  const found = differences([{ sae: "a", index: 1, strength: 1 }], [{ sae: "b", index: 1, strength: 1 }]);
  expect(found.map(({ sae, after }) => [sae, after])).toEqual([
    ["a", null],
    ["b", "add 1 raw"],
  ]);
});
