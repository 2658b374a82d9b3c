// The AI SDK with the provider that is meant for servers like ours.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText } from 'ai';
import { features } from './ai_features.mjs';
import { tell } from './telling.mjs';

const provider = (task) =>
  createOpenAICompatible({ name: 'millm', baseURL: task.base_url, apiKey: 'any', supportsStructuredOutputs: true });

await tell({
  ...features({
    chatModel: (task, model) => provider(task).chatModel(model),
    embeddingModel: (task) => provider(task).textEmbeddingModel(task.model),
  }),
  async completions(task) {
    const model = provider(task).completionModel(task.model);
    const settings = { maxOutputTokens: task.max_tokens, temperature: 0, maxRetries: 0 };
    const { request, text } = await generateText({ model, prompt: task.question, ...settings });
    return { prompt: request.body.prompt, text }; // it writes a dialogue of its own around the question
  },
});
