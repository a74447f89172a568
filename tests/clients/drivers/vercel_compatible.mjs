// Vercel's AI SDK with its provider for OpenAI-style servers: names no form; takes base64, or fetches the URL itself.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateImage } from 'ai';
import { promptOf, serve } from './serving.mjs';

await serve((baseURL) => async (one) => {
  const provider = createOpenAICompatible({ name: 'pixelgate', baseURL, apiKey: one.key });
  const { images } = await generateImage({
    model: provider.imageModel(one.model),
    prompt: promptOf(one),
    size: one.size,
    n: one.n ?? 1,
    maxRetries: 0,
  });
  return images.map((image) => image.base64);
});
