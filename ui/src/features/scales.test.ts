/** Reading a line of numbers. */
import { expect, test } from "vitest";
import { scalesOf } from "./scales";

test("commas, blanks and semicolons are between numbers", () => {
  expect(scalesOf("0, 0.5;1  2")).toEqual([0, 0.5, 1, 2]);
  expect(scalesOf("")).toEqual([]);
});

test("a number that is there twice is one", () => {
  expect(scalesOf("1, 1.0")).toEqual([1]);
});

test("anything else is refused", () => {
  expect(scalesOf("1, two")).toBeNull();
  expect(scalesOf("Infinity")).toBeNull();
});
