/** Reading an OpenAPI document. */
import { expect, test } from "vitest";
import { routesOf } from "./openapi";

test("a route for each method, with what goes in and comes out", () => {
  const document = {
    paths: {
      "/api/x/{id}": {
        get: {
          summary: "Get X",
          parameters: [{ name: "id", in: "path", required: true }],
          responses: { "4XX": {}, "200": { content: { "application/json": { schema: { $ref: "#/a/b/X" } } } } },
        },
        post: { requestBody: { content: { "application/octet-stream": {} } } },
      },
    },
  };
  expect(routesOf(document)).toEqual([
    {
      method: "GET",
      path: "/api/x/{id}",
      summary: "Get X",
      description: "",
      parameters: [{ name: "id", place: "path", description: "", isRequired: true }],
      body: null,
      answer: "X",
    },
    {
      method: "POST",
      path: "/api/x/{id}",
      summary: "",
      description: "",
      parameters: [],
      body: "application/octet-stream",
      answer: null,
    },
  ]);
});

test("an answer without a name is told by its fields", () => {
  const schema = { type: "object", properties: { lines: {}, more: {} } };
  const [route] = routesOf({ paths: { "/l": { get: { responses: { 200: { content: { json: { schema } } } } } } } });
  expect(route!.answer).toBe("{lines, more}");
});
