/** Each column goes on from its own answers. */
import { expect, test } from "vitest";
import { besides, lastOf, messages, pathTo, type Turn } from "./conversation";

const done = (text: string) => ({ text, state: "done" as const });
const TURNS: Turn[] = [
  { id: 0, parent: null, question: "one", answers: { Base: done("calm"), Steered: done("LOUD") } },
  { id: 1, parent: 0, question: "two", answers: { Base: { text: "", state: "failed" }, Steered: done("LOUDER") } },
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

const turn = (id: number, parent: number | null): Turn => ({ id, parent, question: String(id), answers: {} });
const ids = (turns: readonly Turn[]) => turns.map(({ id }) => id);

test("branches stand beside each other, and each goes on where it was last", () => {
  const all = [turn(0, null), turn(1, 0), turn(2, 1), turn(3, 0), turn(4, null), turn(5, 3)];
  expect(ids(pathTo(all, 5))).toEqual([0, 3, 5]);
  expect(pathTo(all, null)).toEqual([]);
  expect(ids(besides(all, all[1]!))).toEqual([1, 3]);
  expect(ids(besides(all, all[0]!))).toEqual([0, 4]);
  expect([lastOf(all, 0), lastOf(all, 1), lastOf(all, 4)]).toEqual([5, 2, 4]);
});
