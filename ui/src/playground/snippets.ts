/** The question of now, as code to paste: curl, Python and JavaScript, by the model's name or by the body's fields. */
import { curlOf } from "@/lib/curl";
import type { Message, Sampling, Steered } from "./asking";

export interface Shown {
  origin: string;
  model: string;
  messages: readonly Message[];
  sampling: Sampling;
  steered: Steered;
}

export type Language = "curl" | "Python" | "JavaScript";

export function snippet(language: Language, shown: Shown): string {
  const { origin, sampling } = shown;
  const model = "profile" in shown.steered ? `${shown.model}:${shown.steered.profile}` : shown.model;
  const extra = "profile" in shown.steered ? {} : shown.steered;
  const body = { model, messages: shown.messages, ...sampling };
  const all = JSON.stringify({ ...body, ...extra }, null, 2);
  switch (language) {
    case "curl":
      return curlOf(origin, "/v1/chat/completions", all);
    case "Python":
      return python(origin, body, extra);
    case "JavaScript":
      return (
        `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${origin}/v1", apiKey: "unused" });\n` +
        `const answer = await client.chat.completions.create(${all});\nconsole.log(answer.choices[0].message.content);\n`
      );
  }
}

function python(origin: string, body: object, extra: object): string {
  const words = Object.entries(body).map(([name, value]) => `    ${name}=${literal(value)},\n`);
  const more = Object.keys(extra).length ? `    extra_body=${literal(extra)},\n` : "";
  return (
    `from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key="unused")\n` +
    `answer = client.chat.completions.create(\n${words.join("")}${more})\nprint(answer.choices[0].message.content)\n`
  );
}

/** JSON's values as Python writes them; a JSON string is a Python string. */
function literal(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, inner]) => `${JSON.stringify(name)}: ${literal(inner)}`)
    .join(", ")}}`;
}
