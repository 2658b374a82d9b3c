/** The server's API, as a journey prepares what a person would have done before. */
export const apiOf = (url) => async (method, path, body) => {
  const isText = typeof body === "string";
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { "Content-Type": isText ? "application/octet-stream" : "application/json" },
    body: body === undefined || isText ? body : JSON.stringify(body),
  });
  const told = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${told}`);
  return told.startsWith("{") ? JSON.parse(told) : told;
};
