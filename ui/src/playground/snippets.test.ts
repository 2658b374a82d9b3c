/** The code holds what the page asks, whatever is in the texts. */
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { snippet, type Shown } from "./snippets";

const SHOWN: Shown = {
  origin: "http://127.0.0.1:8000",
  model: "demo",
  messages: [{ role: "user", content: `It's "quoted" \\ and\nnew 🦜` }],
  sampling: { seed: 16, temperature: 0.5, max_tokens: 64 },
  steered: { steering: { features: [{ index: 3, strength: 2.5, muted: false }], skip: null } as never },
};

const body = { model: "demo", messages: SHOWN.messages, ...SHOWN.sampling };

test("curl: the shell hands over the very body", () => {
  const words = snippet("curl", SHOWN).replace(/^curl/, "printf '%s\\0'");
  const handed = execFileSync("sh", ["-c", words]).toString().split("\0");
  expect(JSON.parse(handed[4]!)).toEqual({ ...body, ...SHOWN.steered });
});

test("Python: the same arguments, the steering in extra_body", () => {
  const call = /create\(\n([\s\S]*)\)\nprint/.exec(snippet("Python", SHOWN))![1]!;
  const told = execFileSync("python3", ["-c", `import json; print(json.dumps(dict(${call})))`]).toString();
  expect(JSON.parse(told)).toEqual({ ...body, extra_body: SHOWN.steered });
});

test("a profile is asked for by the model's name", () => {
  const code = snippet("JavaScript", { ...SHOWN, steered: { profile: "yelling" } });
  expect(code).toContain('"model": "demo:yelling"');
  expect(code).not.toContain('"profile"');
});
