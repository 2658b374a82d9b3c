/** The points of a live chart. */
import { expect, test } from "vitest";
import { pointsOf } from "./points";

const sample = (request: string, value: number, after: number | null = null) => ({
  request,
  value,
  after,
  position: 0,
  token: "a",
});

test("a point per token", () => {
  expect(pointsOf([sample("a", 1), sample("a", 2, 3)])).toEqual([
    [0, 1],
    [1, 2],
    [null, 3],
  ]);
});

test("a gap where another request begins", () => {
  expect(pointsOf([sample("a", 1), sample("b", 2)])[1]).toEqual([1, null, 2]);
});

test("nothing yet", () => {
  expect(pointsOf([])).toEqual([[], [], []]);
});
