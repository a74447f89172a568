// LangChain for JavaScript: always names a form, URL unless told otherwise.
import { DallEAPIWrapper } from '@langchain/openai';
import { serve } from './serving.mjs';

await serve((baseUrl) => async (one) => {
  const tool = new DallEAPIWrapper({
    baseUrl,
    apiKey: one.key,
    model: one.model,
    size: one.size,
    dallEResponseFormat: one.response_format ?? 'url',
  });
  tool.client.maxRetries = 0;
  return [await tool._call(one.prompt)];
});
