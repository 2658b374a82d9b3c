/** The colour of a token, against the formula worked out by hand. */
import { expect, test } from "vitest";
import { heat } from "./heat";

test("nothing fires: no colour; the maximum: full colour", () => {
  expect(heat(0, 5)).toBe(0);
  expect(heat(-1, 5)).toBe(0);
  expect(heat(5, 5)).toBeCloseTo(1, 12);
  expect(heat(50, 5)).toBeCloseTo(1, 12);
});

test("a tenth of the maximum is seen", () => {
  expect(heat(0.5, 5)).toBeCloseTo(0.05 + 0.95 * 0.2787536, 6); // log10(1.9)
});

test("without a maximum there is no colour", () => {
  expect(heat(1, 0)).toBe(0);
  expect(heat(NaN, 1)).toBe(0);
});
