/** One question to one column: a streamed chat answer with a steering of its own, so that nobody else is disturbed. */
import type { Schemas } from "@/lib/api";
import { streamed } from "@/lib/stream";

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Sampling {
  seed: number;
  temperature: number;
  max_tokens: number;
}

export type Steered = { steering: Schemas["SteeringState"]["steering"] } | { profile: string };

export interface Receipt {
  profile: string | null;
  steering: string | null;
  tokens_steered: number;
  delta_norm_ratio: number | null;
  degraded?: string;
}

export interface Answer {
  text: string;
  state: "waiting" | "writing" | "done" | "stopped" | "failed";
  failure?: unknown;
  receipt?: Receipt;
  /** Seconds from the question to the first text. */
  firstText?: number;
  tokensPerSecond?: number;
}

interface Chunk {
  choices: { delta: { content?: string | null } }[];
  usage?: { completion_tokens: number } | null;
  millm?: Receipt;
}

export const WAITING: Answer = { text: "", state: "waiting" };

export const body = (model: string, messages: readonly Message[], steered: Steered, sampling: Sampling) => ({
  model,
  messages,
  ...steered,
  ...sampling,
});

/** The answer again and again, each time with more of it; an aborted signal ends it as `stopped`. */
export async function* ask(asked: ReturnType<typeof body>, signal: AbortSignal): AsyncGenerator<Answer> {
  const began = performance.now();
  let answer = WAITING;
  try {
    const streaming = { ...asked, stream: true, stream_options: { include_usage: true } };
    for await (const chunk of streamed<Chunk>("/v1/chat/completions", streaming, signal)) {
      answer = grown(answer, chunk, (performance.now() - began) / 1000);
      yield answer;
    }
    yield { ...answer, state: "done" };
  } catch (thrown) {
    yield signal.aborted ? { ...answer, state: "stopped" } : { ...answer, state: "failed", failure: thrown };
  }
}

function grown(answer: Answer, chunk: Chunk, seconds: number): Answer {
  const text = chunk.choices[0]?.delta.content ?? "";
  const firstText = answer.firstText ?? (text ? seconds : undefined);
  const told = chunk.usage && firstText !== undefined && chunk.usage.completion_tokens > 1;
  return {
    text: answer.text + text,
    state: "writing",
    firstText,
    receipt: chunk.millm ?? answer.receipt,
    tokensPerSecond: told ? (chunk.usage!.completion_tokens - 1) / (seconds - firstText) : answer.tokensPerSecond,
  };
}
