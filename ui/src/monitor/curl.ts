/** A request that was kept, as a command that sends it again. */
export const curlOf = (origin: string, endpoint: string, body: string): string =>
  `curl ${origin}${endpoint} -H 'Content-Type: application/json' --data-binary '${body.replaceAll("'", "'\\''")}'\n`;
