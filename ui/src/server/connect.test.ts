/** What is offered to paste. */
import { expect, test } from "vitest";
import { snippets } from "./connect";

const shown = snippets({ origin: "http://127.0.0.1:8000", model: `it's "loud":x` });

test("every client is told the address, each once", () => {
  expect(shown.every(({ text }) => text.includes("http://127.0.0.1:8000"))).toBe(true);
  expect(new Set(shown.map(({ client }) => client)).size).toBe(shown.length);
});

test("a name with quotes stays one word in a shell", () => {
  const { text } = shown.find(({ client }) => client === "curl")!;
  const quoted = /-d '(.*)'\n$/.exec(text)![1]!;
  expect(JSON.parse(quoted.replaceAll("'\\''", "'")).model).toBe(`it's "loud":x`);
});

test("in code it is a string of that language", () => {
  const named = shown.filter(({ client }) => !["curl", "Open WebUI"].includes(client));
  expect(named.every(({ text }) => text.includes(JSON.stringify(`it's "loud":x`)))).toBe(true);
});
