// The AI SDK with OpenAI's own provider: by `.chat()`, and by default through /v1/responses.
import { createOpenAI } from '@ai-sdk/openai';
import { features } from './ai_features.mjs';
import { tell } from './telling.mjs';

const provider = (task) => createOpenAI({ baseURL: task.base_url, apiKey: 'any' });

await tell(
  features({
    chatModel: (task, model) => provider(task).chat(model),
    embeddingModel: (task) => provider(task).embedding(task.model),
  }),
);
