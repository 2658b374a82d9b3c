/** What went wrong, as the server says it in its one envelope: a sentence for people and a code that is stable. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly code: string,
    readonly status: number,
    readonly param: string | null = null,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
}

interface Envelope {
  error: { message: string; code: string | null; param: string | null };
}

function isEnvelope(body: unknown): body is Envelope {
  const error = (body as Envelope | null)?.error;
  return typeof error === "object" && typeof error?.message === "string";
}

export function failureOf(body: unknown, response: Response): Failure {
  const id = response.headers.get("x-request-id");
  if (!isEnvelope(body))
    return new Failure(`The server answered ${response.status}.`, "unexpected", response.status, null, id);
  const { message, code, param } = body.error;
  return new Failure(message, code ?? "unexpected", response.status, param, id);
}

export const UNREACHABLE = "unreachable";

/** What fetch throws in Chromium, Firefox and Safari; any other TypeError is a fault of the page. */
const NO_ANSWER = /failed to fetch|networkerror|load failed/i;

/** Whatever was thrown, as a failure: what fetch throws is a server that does not answer. */
export function asFailure(thrown: unknown): Failure {
  if (thrown instanceof Failure) return thrown;
  if (thrown instanceof TypeError && NO_ANSWER.test(thrown.message))
    return new Failure("The server does not answer. Is it running?", UNREACHABLE, 0);
  return new Failure(thrown instanceof Error ? thrown.message : String(thrown), "unexpected", 0);
}
