// The AI SDK with OpenAI's own provider as it is by default: through /v1/responses.
import { createOpenAI } from '@ai-sdk/openai';
import { features } from './ai_features.mjs';
import { tell } from './telling.mjs';

await tell(features({ chatModel: (task, model) => createOpenAI({ baseURL: task.base_url, apiKey: 'any' })(model) }));
