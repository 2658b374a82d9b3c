/** Each column goes on from its own answers. */
import { expect, test } from "vitest";
import { messages, type Turn } from "./conversation";

const done = (text: string) => ({ text, state: "done" as const });
const TURNS: Turn[] = [
  { question: "one", answers: { Base: done("calm"), Steered: done("LOUD") } },
  { question: "two", answers: { Base: { text: "", state: "failed" }, Steered: done("LOUDER") } },
];
const column = (name: string, system?: string) => ({ name, steered: { steering: null }, system });

test("with its own history, and without turns that it did not answer", () => {
  expect(messages(column("Base", "Be brief."), TURNS, "three")).toEqual([
    { role: "system", content: "Be brief." },
    { role: "user", content: "one" },
    { role: "assistant", content: "calm" },
    { role: "user", content: "three" },
  ]);
  expect(messages(column("Steered"), TURNS, "three").map(({ content }) => content)).toEqual([
    "one", "LOUD", "two", "LOUDER", "three",
  ]); // prettier-ignore
});
