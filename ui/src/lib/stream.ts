/** Server-sent events of a POST, one parsed object at a time; aborting the signal ends the work on the server too. */
import { Failure, failureOf } from "./failure";
import { authorization } from "./key";

/** @throws Failure before the first object if the request is refused, later if the server says so in the stream. */
export async function* streamed<T>(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<Awaited<T>> {
  const response = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream", ...authorization() },
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok || !response.body) throw failureOf(await response.json().catch(() => null), response);
  for await (const data of dataLines(response.body)) {
    if (data === "[DONE]") return;
    const told = JSON.parse(data) as T & { error?: { message: string; code: string | null } };
    if (told.error) throw new Failure(told.error.message, told.error.code ?? "unexpected", response.status);
    yield told as Awaited<T>;
  }
}

async function* dataLines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of texts(body)) {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trimStart();
  }
}

async function* texts(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read()) yield read.value;
  } finally {
    await reader.cancel().catch(() => undefined); // of an aborted answer nothing can be cancelled any more
  }
}
