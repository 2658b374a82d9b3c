// openai-node: what its users call.
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { raisedBy, tell } from './telling.mjs';

const Weather = z.object({ city: z.enum(['Oslo', 'Rome']), degrees: z.int().min(0).max(40) });

const client = (task) => new OpenAI({ baseURL: task.base_url, apiKey: 'any', maxRetries: 0 });

const asked = (task, changes = {}) => ({
  model: task.model,
  messages: [{ role: 'user', content: task.question }],
  temperature: 0,
  max_tokens: task.max_tokens,
  ...changes,
});

const forced = (task) =>
  asked(task, {
    tools: [task.tool],
    tool_choice: { type: 'function', function: { name: task.tool.function.name } },
    max_tokens: 64,
  });

const answer = async (task, changes) => (await client(task).chat.completions.create(asked(task, changes))).choices[0];

const responded = (task, changes = {}) => ({
  model: task.model,
  input: task.question,
  temperature: 0,
  max_output_tokens: task.max_tokens,
  ...changes,
});

const called = (choice) => {
  const [call] = choice.message.tool_calls;
  return { name: call.function.name, arguments: call.function.arguments };
};

await tell({
  async models(task) {
    const ids = [];
    for await (const model of client(task).models.list()) ids.push(model.id);
    const { id } = await client(task).models.retrieve(task.steered);
    return ids.includes(id) ? ids : [];
  },
  chat: async (task) => (await answer(task)).message.content,
  async streaming(task) {
    const pieces = [];
    for await (const chunk of await client(task).chat.completions.create(asked(task, { stream: true }))) {
      pieces.push(chunk.choices[0].delta.content ?? '');
    }
    return pieces;
  },
  profile: async (task) => (await answer(task, { model: task.steered })).message.content,
  async usage(task) {
    const stream = client(task).chat.completions.stream(asked(task, { stream_options: { include_usage: true } }));
    const used = await stream.totalUsage();
    return [used.prompt_tokens, used.completion_tokens, used.total_tokens];
  },
  async completions(task) {
    const { model, question: prompt, max_tokens } = task;
    const { choices } = await client(task).completions.create({ model, prompt, max_tokens, temperature: 0 });
    return { prompt, text: choices[0].text };
  },
  tools: async (task) => called((await client(task).chat.completions.create(forced(task))).choices[0]),
  async streamed_tools(task) {
    const stream = client(task).chat.completions.stream(forced(task));
    return called((await stream.finalChatCompletion()).choices[0]);
  },
  tool_results: async (task) => (await answer(task, { messages: task.after_a_call })).message.content,
  async structured(task) {
    const response_format = zodResponseFormat(Weather, 'weather');
    const parsed = await client(task).chat.completions.parse(asked(task, { response_format, max_tokens: 64 }));
    return parsed.choices[0].message.parsed;
  },
  async embeddings(task) {
    const answered = await client(task).embeddings.create({ model: task.model, input: task.texts });
    return answered.data.map((entry) => entry.embedding);
  },
  responses: async (task) => (await client(task).responses.create(responded(task))).output_text,
  async streamed_responses(task) {
    const pieces = [];
    for await (const event of client(task).responses.stream(responded(task))) {
      if (event.type === 'response.output_text.delta') pieces.push(event.delta);
    }
    return pieces;
  },
  async structured_responses(task) {
    const text = { format: zodTextFormat(Weather, 'weather') };
    return (await client(task).responses.parse(responded(task, { text, max_output_tokens: 64 }))).output_parsed;
  },
  unknown_model: (task) => raisedBy(() => answer(task, { model: 'nobody/nothing' })),
  too_long: (task) => raisedBy(() => answer(task, { messages: [{ role: 'user', content: task.long_text }] })),
});
