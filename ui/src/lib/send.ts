/** A document sent as it is, bytes and all: what a file of another tool becomes is the server's to say. */
import { failureOf } from "./failure";
import { authorization } from "./key";

/** @throws Failure as the server tells it. */
export async function sent<T>(path: string, document: Blob): Promise<T> {
  const headers = { "Content-Type": "application/octet-stream", ...authorization() };
  const response = await fetch(path, { method: "POST", headers, body: document });
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) throw failureOf(body, response);
  return body as T;
}
