// The official client for Node, its streams, and its twin for Azure.
import OpenAI, { AzureOpenAI } from 'openai';
import { pick, serve } from './serving.mjs';

const NAMES = ['model', 'prompt', 'size', 'n', 'response_format', 'quality', 'output_format', 'stream'];

const clientOf = (one, baseURL) =>
  one.azure
    ? new AzureOpenAI({ endpoint: baseURL.replace(/\/v1$/, ''), apiKey: one.key, apiVersion: '2025-04-01-preview', maxRetries: 0 })
    : new OpenAI({ baseURL, apiKey: one.key, maxRetries: 0 });

await serve((baseURL) => async (one) => {
  const answer = await clientOf(one, baseURL).images.generate(pick(one, NAMES));
  if (!one.stream) return answer.data.map((image) => image.b64_json ?? image.url);
  const pictures = [];
  for await (const event of answer) if (event.type === 'image_generation.completed') pictures.push(event.b64_json);
  return pictures;
});
