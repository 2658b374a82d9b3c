/** The server's HTTP surface, typed by its own document. `told` gives an answer's body or throws its Failure. */
import createClient from "openapi-fetch";
import { failureOf } from "./failure";
import { authorization } from "./key";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];

export const api = createClient<paths>({ baseUrl: "/" });

api.use({
  onRequest({ request }) {
    for (const [name, value] of Object.entries(authorization())) request.headers.set(name, value);
    return request;
  },
});

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** @throws Failure as the server tells it, or what fetch throws where nothing answers. */
export async function told<T>(asked: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await asked;
  if (!response.ok) throw failureOf(error, response);
  return data as T;
}
