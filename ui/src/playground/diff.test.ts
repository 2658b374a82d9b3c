/** The pieces join to the texts again, and what is shared is the same on both sides. */
import { expect, test } from "vitest";
import { diff, firstDifference } from "./diff";

const join = (pieces: { text: string }[]) => pieces.map(({ text }) => text).join("");
const shared = (pieces: { text: string; isShared: boolean }[]) =>
  pieces.filter(({ isShared }) => isShared).flatMap(({ text }) => text.split(/\s+/).filter(Boolean));

test.each([
  ["the cat sat on the mat", "the dog sat on a mat"],
  ["", "something"],
  ["one\ntwo three", "two\n\nthree four"],
  ["a b a b a b", "b a b"],
])("%j against %j", (left, right) => {
  const [a, b] = diff(left, right);
  expect(join(a)).toBe(left);
  expect(join(b)).toBe(right);
  expect(shared(a)).toEqual(shared(b));
});

test("it is the longest that is shared", () => {
  expect(shared(diff("the cat sat on the mat", "the dog sat on a mat")[0])).toEqual(["the", "sat", "on", "mat"]);
});

test("the first difference is counted in words from one", () => {
  expect(firstDifference("Paris is a city", "Paris is the town")).toBe(3);
  expect(firstDifference("Paris is", "Paris is a city")).toBeNull();
});
