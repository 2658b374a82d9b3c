/** The shell hands over the very body, whatever is in it. */
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { curlOf } from "./curl";

test("a body with quotes, lines and dollars", () => {
  const body = JSON.stringify({ prompt: `It's "$HOME" \\ \`ls\`\n🦜` });
  const words = curlOf("http://127.0.0.1:8000", "/v1/completions", body).replace(/^curl/, "printf '%s\\0'");
  const handed = execFileSync("sh", ["-c", words]).toString().split("\0");
  expect(handed.slice(0, 5)).toEqual([
    "http://127.0.0.1:8000/v1/completions",
    "-H",
    "Content-Type: application/json",
    "-d",
    body,
  ]);
});
