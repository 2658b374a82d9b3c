/** What to paste into a client so that it talks to this server. */
import { curlOf } from "@/lib/curl";

export interface Server {
  /** Without a slash at its end. */
  origin: string;
  /** As a client names it: `model` or `model:profile`. */
  model: string;
}

export interface Snippet {
  client: string;
  /** Where it goes. */
  where: string;
  text: string;
}

export const snippets = ({ origin, model }: Server): Snippet[] => [
  {
    client: "curl",
    where: "in a terminal",
    text: curlOf(
      origin,
      "/v1/chat/completions",
      JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] }),
    ),
  },
  {
    client: "Python, openai",
    where: "pip install openai",
    text:
      `from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key="unused")\n` +
      `answer = client.chat.completions.create(\n    model=${JSON.stringify(model)},\n` +
      `    messages=[{"role": "user", "content": "Hello"}],\n)\nprint(answer.choices[0].message.content)\n`,
  },
  {
    client: "JavaScript, openai",
    where: "npm install openai",
    text:
      `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${origin}/v1", apiKey: "unused" });\n` +
      `const answer = await client.chat.completions.create({\n  model: ${JSON.stringify(model)},\n` +
      `  messages: [{ role: "user", content: "Hello" }],\n});\nconsole.log(answer.choices[0].message.content);\n`,
  },
  {
    client: "LangChain",
    where: "pip install langchain-openai",
    text:
      `from langchain_openai import ChatOpenAI\n\n` +
      `chat = ChatOpenAI(base_url="${origin}/v1", api_key="unused", model=${JSON.stringify(model)})\n` +
      `print(chat.invoke("Hello").content)\n`,
  },
  {
    client: "Open WebUI",
    where: "in its environment; on this machine, outside of a container",
    text: `ENABLE_OLLAMA_API=false OPENAI_API_BASE_URL=${origin}/v1 OPENAI_API_KEY=unused open-webui serve\n`,
  },
  {
    client: "LibreChat",
    where: "in librechat.yaml",
    text:
      `endpoints:\n  custom:\n    - name: miLLM\n      apiKey: unused\n      baseURL: ${origin}/v1\n` +
      `      models:\n        default: [${JSON.stringify(model)}]\n        fetch: true\n`,
  },
  {
    client: "llm",
    where: "in extra-openai-models.yaml of the folder that `llm logs path` names",
    text: `- model_id: millm\n  model_name: ${JSON.stringify(model)}\n  api_base: ${origin}/v1\n`,
  },
];
