/** A conversation in columns: every turn is one question and, per column, an answer that grows while it is written.
 *
 * Turns are a tree: what is asked again, edited, or asked from an earlier turn on is a branch beside the old one.
 */
import { useCallback, useRef, useState } from "react";
import { ask, body, WAITING, type Answer, type Message, type Sampling, type Steered } from "./asking";

export interface Column {
  name: string;
  steered: Steered;
  system?: string;
}

export interface Turn {
  id: number;
  /** The turn that it goes on from; null: it begins a conversation. */
  parent: number | null;
  question: string;
  answers: Record<string, Answer>;
}

interface Asked {
  model: string;
  question: string;
  columns: readonly Column[];
  sampling: Sampling;
  /** The turn that it goes on from. */
  after: number | null;
}

export function useConversation() {
  const [all, setAll] = useState<readonly Turn[]>([]);
  const [end, setEnd] = useState<number | null>(null);
  const [isWriting, setWriting] = useState(false);
  const running = useRef<AbortController | null>(null);
  const next = useRef(0);

  const stop = useCallback(() => running.current?.abort(), []);

  const send = async ({ model, question, columns, sampling, after }: Asked) => {
    running.current?.abort();
    const controller = (running.current = new AbortController());
    const id = next.current++;
    const answers = Object.fromEntries(columns.map(({ name }) => [name, WAITING]));
    setAll((before) => [...before, { id, parent: after, question, answers }]);
    setEnd(id);
    setWriting(true);
    const before = pathTo(all, after);
    const write = async (column: Column) => {
      const asked = body(model, messages(column, before, question), column.steered, sampling);
      for await (const answer of ask(asked, controller.signal))
        if (running.current === controller) setAll((turns) => withAnswer(turns, id, column.name, answer));
    };
    await Promise.all(columns.map(write));
    if (running.current === controller) setWriting(false);
  };

  const clear = useCallback(() => {
    stop();
    running.current = null;
    setWriting(false);
    setAll([]);
    setEnd(null);
  }, [stop]);

  /** Goes on from a turn, or from before the first: what came after it stays, as a branch. */
  const goTo = (turn: number | null) => setEnd(turn);
  /** Shows another branch, down to where it was last. */
  const show = (turn: number) => setEnd(lastOf(all, turn));

  return { turns: pathTo(all, end), all, isWriting, send, stop, clear, goTo, show };
}

/** From the first turn to this one. */
export function pathTo(all: readonly Turn[], id: number | null): readonly Turn[] {
  const turn = all.find((turn) => turn.id === id);
  return turn ? [...pathTo(all, turn.parent), turn] : [];
}

/** The newest turn at the end of what goes on from this one. */
export function lastOf(all: readonly Turn[], id: number): number {
  const following = all.findLast(({ parent }) => parent === id);
  return following ? lastOf(all, following.id) : id;
}

/** Turns that go on from the same place, in the order in which they were asked. */
export const besides = (all: readonly Turn[], { parent }: Turn): readonly Turn[] =>
  all.filter((turn) => turn.parent === parent);

/** What a column has been told so far: its own answers, not the other column's. */
export function messages(column: Column, before: readonly Turn[], question: string): Message[] {
  const told = before.flatMap(({ question, answers }): Message[] => {
    const text = answers[column.name]?.text;
    const asked: Message = { role: "user", content: question };
    return text ? [asked, { role: "assistant", content: text }] : [];
  });
  const system: Message[] = column.system ? [{ role: "system", content: column.system }] : [];
  return [...system, ...told, { role: "user", content: question }];
}

function withAnswer(turns: readonly Turn[], id: number, column: string, answer: Answer): readonly Turn[] {
  return turns.map((turn) => (turn.id === id ? { ...turn, answers: { ...turn.answers, [column]: answer } } : turn));
}
