// LibreChat's engine, as LibreChat calls it for a custom endpoint: a streamed run whose usage is collected.
import { HumanMessage } from '@langchain/core/messages';
import { GraphEvents, ModelEndHandler, Providers, Run } from '@librechat/agents';
import { tell } from './telling.mjs';

async function run(task, model) {
  const pieces = [];
  const used = [];
  const collect = (_event, data) => pieces.push(...data.delta.content.map((part) => part.text));
  const started = await Run.create({
    runId: crypto.randomUUID(),
    graphConfig: {
      type: 'standard',
      llmConfig: {
        provider: Providers.OPENAI,
        model,
        apiKey: 'any',
        configuration: { baseURL: task.base_url },
        temperature: 0,
        maxTokens: task.max_tokens,
        streaming: true,
        streamUsage: true,
        maxRetries: 0,
      },
    },
    customHandlers: {
      [GraphEvents.ON_MESSAGE_DELTA]: { handle: collect },
      [GraphEvents.CHAT_MODEL_END]: new ModelEndHandler(used),
    },
  });
  const session = { runId: crypto.randomUUID(), streamMode: 'values', version: 'v2', configurable: { thread_id: '1' } };
  await started.processStream({ messages: [new HumanMessage(task.question)] }, session);
  return { pieces, used };
}

await tell({
  streaming: async (task) => (await run(task, task.model)).pieces,
  profile: async (task) => (await run(task, task.steered)).pieces.join(''),
  async usage(task) {
    const [{ input_tokens, output_tokens, total_tokens }] = (await run(task, task.model)).used;
    return [input_tokens, output_tokens, total_tokens];
  },
});
