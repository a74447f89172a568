// The official client for Node.
import OpenAI from 'openai';
import { pick, serve } from './serving.mjs';

await serve((baseURL) => async (one) => {
  const client = new OpenAI({ baseURL, apiKey: one.key, maxRetries: 0 });
  const names = ['model', 'prompt', 'size', 'n', 'response_format', 'quality', 'output_format'];
  const answer = await client.images.generate(pick(one, names));
  return answer.data.map((image) => image.b64_json ?? image.url);
});
