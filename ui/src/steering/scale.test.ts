/** Places and strengths are one to one, and exact where people look. */
import { expect, test } from "vitest";
import { placeOf, rangeOf, strengthAt, zoneEnds, zoneOf } from "./scale";

test.each([-1, 0, 1])("place %d is exact", (place) => expect(strengthAt(place, 355.3)).toBe(place * 355.3));

test("there and back again, rising all the way", () => {
  let before = -Infinity;
  for (let place = -1; place <= 1; place += 0.01) {
    const strength = strengthAt(place, 300);
    expect(strength).toBeGreaterThan(before);
    expect(placeOf(strength, 300)).toBeCloseTo(place, 9);
    before = strength;
  }
});

test("both signs mirror each other", () => expect(strengthAt(-0.4, 80)).toBe(-strengthAt(0.4, 80)));

test("what is set now is always on the slider", () => {
  expect(rangeOf(100, null, -900)).toBe(900);
  expect(rangeOf(100, 130, 5)).toBe(520);
});

test.each([
  [0.1, "subtle"],
  [-0.5, "usual"],
  [0.9, "strong"],
  [1.01, "likely incoherent"],
])("%d of the norm is %s", (share, zone) => expect(zoneOf(share)).toBe(zone));

test("a zone ends where its name changes, on both sides, as far as the slider goes", () => {
  const ends = zoneEnds(150, 0.01);
  expect(ends).toHaveLength(6);
  for (const place of ends) {
    const names = [place - 0.001, place + 0.001].map((at) => zoneOf(strengthAt(at, 150) * 0.01));
    expect(names[0]).not.toBe(names[1]);
  }
  expect(zoneEnds(15, 0.01)).toEqual([]);
});
