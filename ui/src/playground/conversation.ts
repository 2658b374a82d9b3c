/** A conversation in columns: every turn is one question and, per column, an answer that grows while it is written. */
import { useCallback, useRef, useState } from "react";
import { ask, body, WAITING, type Answer, type Message, type Sampling, type Steered } from "./asking";

export interface Column {
  name: string;
  steered: Steered;
  system?: string;
}

export interface Turn {
  question: string;
  answers: Record<string, Answer>;
}

interface Asked {
  model: string;
  question: string;
  columns: readonly Column[];
  sampling: Sampling;
  /** Turns that stay before it; those after it are dropped. */
  after: readonly Turn[];
}

export function useConversation() {
  const [turns, setTurns] = useState<readonly Turn[]>([]);
  const [isWriting, setWriting] = useState(false);
  const running = useRef<AbortController | null>(null);

  const stop = useCallback(() => running.current?.abort(), []);

  const send = useCallback(async ({ model, question, columns, sampling, after }: Asked) => {
    running.current?.abort();
    const controller = (running.current = new AbortController());
    const empty: Turn = { question, answers: Object.fromEntries(columns.map(({ name }) => [name, WAITING])) };
    setTurns([...after, empty]);
    setWriting(true);
    const write = async (column: Column) => {
      const asked = body(model, messages(column, after, question), column.steered, sampling);
      for await (const answer of ask(asked, controller.signal))
        if (running.current === controller) setTurns((all) => withAnswer(all, after.length, column.name, answer));
    };
    await Promise.all(columns.map(write));
    if (running.current === controller) setWriting(false);
  }, []);

  const clear = useCallback(() => {
    stop();
    running.current = null;
    setWriting(false);
    setTurns([]);
  }, [stop]);

  return { turns, isWriting, send, stop, clear };
}

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

function withAnswer(turns: readonly Turn[], place: number, column: string, answer: Answer): readonly Turn[] {
  return turns.map((turn, index) =>
    index === place ? { ...turn, answers: { ...turn.answers, [column]: answer } } : turn,
  );
}
