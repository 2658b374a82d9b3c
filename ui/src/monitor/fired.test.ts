/** What fired in a request, worked out by hand. */
import { expect, test } from "vitest";
import { firedIn, valueAt } from "./fired";

const token = (values: number[], top: [number, number][], after?: number[]) => ({
  index: 0,
  sae: "s",
  position: 0,
  generated: true,
  token: "a",
  features: [3],
  values,
  top,
  after,
});

const tokens = [
  token([2], [[7, 5]], [4]),
  token(
    [0],
    [
      [7, 1],
      [9, 8],
    ],
  ),
];

test("watched features first, then the strongest", () => {
  expect(firedIn(tokens).map(({ index }) => index)).toEqual([3, 9, 7]);
});

test("largest, mean and count are of the tokens at which it is known", () => {
  expect(firedIn(tokens)).toEqual([
    { index: 3, isWatched: true, max: 2, mean: 1, count: 1, known: 2 },
    { index: 9, isWatched: false, max: 8, mean: 8, count: 1, known: 1 },
    { index: 7, isWatched: false, max: 5, mean: 3, count: 2, known: 2 },
  ]);
});

test("a token's activation, before and after steering", () => {
  expect(valueAt(tokens[0]!, 3)).toBe(2);
  expect(valueAt(tokens[0]!, 3, true)).toBe(4);
  expect(valueAt(tokens[1]!, 3, true)).toBeNull();
  expect(valueAt(tokens[0]!, 9)).toBeNull();
});
