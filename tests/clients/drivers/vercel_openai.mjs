// Vercel's AI SDK with its provider for OpenAI: always base64, names without a default form are asked for it.
import { createOpenAI } from '@ai-sdk/openai';
import { generateImage } from 'ai';
import { promptOf, serve } from './serving.mjs';

await serve((baseURL) => async (one) => {
  const provider = createOpenAI({ baseURL, apiKey: one.key });
  const { images } = await generateImage({
    model: provider.image(one.model),
    prompt: promptOf(one),
    size: one.size,
    n: one.n ?? 1,
    maxRetries: 0,
  });
  return images.map((image) => image.base64);
});
