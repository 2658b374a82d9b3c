/** Live activations: feature by feature, the newest kept. */
import { expect, test } from "vitest";
import { kept, KEPT, samplesOf } from "./activity";

const event = {
  type: "activations" as const,
  endpoint: "/v1/chat/completions",
  request_id: "r",
  sae: "s",
  index: 0,
  position: 7,
  token: " a",
  features: [3, 11],
  values: [0.5, 0],
};

test("an event is a sample of each feature", () => {
  const samples = samplesOf({ ...event, after: [1.5, 2] });
  expect(samples.map(([key]) => key)).toEqual(["3 s", "11 s"]);
  expect(samples.map(([, sample]) => [sample.value, sample.after])).toEqual([
    [0.5, 1.5],
    [0, 2],
  ]);
});

test("without a value after steering there is none", () => {
  expect(samplesOf(event)[0]![1].after).toBeNull();
});

test("no more are kept than a chart shows, and these are the newest", () => {
  const all = Array.from({ length: KEPT + 5 }, (_, at) => at);
  expect(kept(all, [-1]).length).toBe(KEPT);
  expect(kept(all, [-1]).at(-1)).toBe(-1);
  expect(kept([], [1, 2])).toEqual([1, 2]);
});
