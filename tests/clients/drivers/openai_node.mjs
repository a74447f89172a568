// The official client for Node, its streams, and its twin for Azure.
import OpenAI, { AzureOpenAI, toFile } from 'openai';
import { bytesOf, pick, serve } from './serving.mjs';

const NAMES = [
  'model', 'prompt', 'size', 'n', 'response_format', 'quality', 'output_format', 'stream', 'partial_images',
];

const clientOf = (one, baseURL) =>
  one.azure
    ? new AzureOpenAI({ endpoint: baseURL.replace(/\/v1$/, ''), apiKey: one.key, apiVersion: '2025-04-01-preview', maxRetries: 0 })
    : new OpenAI({ baseURL, apiKey: one.key, maxRetries: 0 });

async function picturesOf(one) {
  const files = await Promise.all(one.images.map((image, index) => toFile(bytesOf(image), `image-${index}.png`)));
  const mask = one.mask && (await toFile(bytesOf(one.mask), 'mask.png', { type: 'image/png' }));
  return { image: files.length > 1 ? files : files[0], ...(mask && { mask }) };
}

await serve((baseURL) => async (one) => {
  const { images } = clientOf(one, baseURL);
  const given = pick(one, NAMES);
  const answer = one.images
    ? await images.edit({ ...given, ...(await picturesOf(one)) })
    : await images.generate(given);
  if (!one.stream) return answer.data.map((image) => image.b64_json ?? image.url);
  const pictures = [];
  const partials = [];
  for await (const event of answer) {
    if (event.type.endsWith('.completed')) pictures.push(event.b64_json);
    if (event.type.endsWith('.partial_image')) partials.push(event.b64_json);
  }
  return { pictures, partials };
});
