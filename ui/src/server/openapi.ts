/** What of an OpenAPI document people look for: its routes, their parameters, and what goes in and comes out. */

interface Schema {
  $ref?: string;
  type?: string;
  properties?: Record<string, Schema>;
}

interface Content {
  content?: Record<string, { schema?: Schema }>;
}

interface Operation {
  summary?: string;
  description?: string;
  parameters?: { name: string; in: string; description?: string; required?: boolean }[];
  requestBody?: Content;
  responses?: Record<string, Content>;
}

export interface Document {
  paths: Record<string, Record<string, Operation>>;
}

export interface Route {
  method: string;
  path: string;
  summary: string;
  description: string;
  parameters: { name: string; place: string; description: string; isRequired: boolean }[];
  /** The name of its schema; null: it has none. */
  body: string | null;
  answer: string | null;
}

export const routesOf = ({ paths }: Document): Route[] =>
  Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => ({
      method: method.toUpperCase(),
      path,
      summary: operation.summary ?? "",
      description: operation.description ?? "",
      parameters: (operation.parameters ?? []).map(({ name, in: place, description, required }) => ({
        name,
        place,
        description: description ?? "",
        isRequired: required ?? false,
      })),
      body: named(operation.requestBody),
      answer: named(Object.entries(operation.responses ?? {}).find(([status]) => status.startsWith("2"))?.[1]),
    })),
  );

function named(content?: Content): string | null {
  const [type, told] = Object.entries(content?.content ?? {})[0] ?? [];
  const schema = told?.schema;
  if (schema?.$ref) return schema.$ref.split("/").at(-1)!;
  if (schema?.properties) return `{${Object.keys(schema.properties).join(", ")}}`;
  return type ?? null;
}
