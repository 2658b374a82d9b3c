/** Numbers are told as people read them. */
import { expect, test } from "vitest";
import { bytes, count, duration, short, signed } from "./numbers";

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [1500, "1.5 KB"],
  [269_000_000, "269 MB"],
  [5_230_000_000, "5.2 GB"],
])("%d bytes are %s", (value, told) => expect(bytes(value)).toBe(told));

test.each([
  [16384, "16.4 k"],
  [135_000_000, "135 M"],
  [2_600_000_000, "2.6 B"],
])("%d of them are %s", (value, told) => expect(count(value)).toBe(told));

test("what was typed with decimals is told with them", () => {
  expect(short(2.5)).toBe("2.5");
  expect(signed(11.25)).toBe("+11.25");
  expect(signed(-0.3)).toBe("-0.3");
});

test.each([
  [0.06, "60 ms"],
  [7.61, "7.6 s"],
  [95, "2 min"],
])("%d seconds are %s", (value, told) => expect(duration(value)).toBe(told));
