/** Finding labels by words. */
import { expect, test } from "vitest";
import { labelsOf } from "@/lib/labels";
import { matching } from "./matching";

const file = `{"index":3,"label":"Dogs and other pets","max_act":2,"density":null}
{"index":11,"label":"Capital letters","density":0.1}
`;
const all = [...labelsOf(file).values()];
const indexes = (words: string) => matching(all, words).map(({ index }) => index);

test("a line of the file is a label", () => {
  expect(labelsOf(file).get(11)).toEqual({ index: 11, label: "Capital letters", max_act: null, density: 0.1 });
  expect(labelsOf("").size).toBe(0);
});

test("all words, in any order, whatever their case", () => {
  expect(indexes("")).toEqual([3, 11]);
  expect(indexes("PETS dogs")).toEqual([3]);
  expect(indexes("dogs letters")).toEqual([]);
  expect(indexes(" 11 ")).toEqual([11]);
});
