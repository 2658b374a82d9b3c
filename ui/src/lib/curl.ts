/** A request as a command for a terminal: the body in single quotes, in which nothing but they themselves is special. */
export const curlOf = (origin: string, endpoint: string, body: string): string =>
  `curl ${origin}${endpoint} -H 'Content-Type: application/json' -d '${body.replaceAll("'", "'\\''")}'\n`;
