// The AI SDK with OpenAI's own provider, told to use /v1/chat/completions.
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
