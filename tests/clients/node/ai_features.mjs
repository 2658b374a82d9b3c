// What users of the AI SDK call, whichever provider the model comes from.
import { embedMany, generateObject, generateText, jsonSchema, streamText, tool } from 'ai';
import { z } from 'zod';
import { raisedBy } from './telling.mjs';

const Weather = z.object({ city: z.enum(['Oslo', 'Rome']), degrees: z.int().min(0).max(40) });

const forced = (task) => {
  const { name, description, parameters } = task.tool.function;
  return {
    tools: { [name]: tool({ description, inputSchema: jsonSchema(parameters) }) },
    toolChoice: { type: 'tool', toolName: name },
    maxOutputTokens: 64,
  };
};

const afterACall = ([question, { tool_calls: [call] }, result]) => {
  const named = { toolCallId: call.id, toolName: call.function.name };
  const input = JSON.parse(call.function.arguments);
  const output = { type: 'text', value: result.content };
  return [
    question,
    { role: 'assistant', content: [{ type: 'tool-call', ...named, input }] },
    { role: 'tool', content: [{ type: 'tool-result', ...named, output }] },
  ];
};

const called = ([call]) => ({ name: call.toolName, arguments: JSON.stringify(call.input) });

export function features({ chatModel, embeddingModel }) {
  const asked = (task, changes = {}) => ({
    model: chatModel(task, task.model),
    prompt: task.question,
    temperature: 0,
    maxOutputTokens: task.max_tokens,
    maxRetries: 0,
    ...changes,
  });
  const rethrow = ({ error }) => {
    throw error;
  };
  return {
    chat: async (task) => (await generateText(asked(task))).text,
    async streaming(task) {
      const pieces = [];
      for await (const piece of streamText(asked(task, { onError: rethrow })).textStream) pieces.push(piece);
      return pieces;
    },
    profile: async (task) => (await generateText(asked(task, { model: chatModel(task, task.steered) }))).text,
    async usage(task) {
      const { usage } = await generateText(asked(task));
      return [usage.inputTokens, usage.outputTokens, usage.totalTokens];
    },
    tools: async (task) => called((await generateText(asked(task, forced(task)))).toolCalls),
    streamed_tools: async (task) =>
      called(await streamText(asked(task, { ...forced(task), onError: rethrow })).toolCalls),
    tool_results: async (task) =>
      (await generateText(asked(task, { prompt: afterACall(task.after_a_call) }))).text,
    structured: async (task) => (await generateObject(asked(task, { schema: Weather, maxOutputTokens: 64 }))).object,
    embeddings: async (task) => (await embedMany({ model: embeddingModel(task), values: task.texts })).embeddings,
    unknown_model: (task) =>
      raisedBy(() => generateText(asked(task, { model: chatModel(task, 'nobody/nothing') }))),
    too_long: (task) => raisedBy(() => generateText(asked(task, { prompt: task.long_text }))),
  };
}
