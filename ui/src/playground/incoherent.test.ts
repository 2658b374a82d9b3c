/** Loops are noticed, prose is not. */
import { expect, test } from "vitest";
import { isIncoherent, repetition } from "./incoherent";

const PROSE =
  "The sea was calm that morning, and the boats went out before the sun had cleared the hills; by noon every one " +
  "of them was back with more fish than anybody in the village remembered.";

test("prose does not repeat itself", () => {
  expect(repetition(PROSE)).toBe(0);
  expect(isIncoherent(PROSE)).toBe(false);
});

test("a loop does", () => {
  expect(isIncoherent("and the sea and the sky ".repeat(8))).toBe(true);
  expect(isIncoherent("Yes!" + "!".repeat(40))).toBe(true);
});

test("a short answer is not judged", () => expect(repetition("no no no no no")).toBe(0));
