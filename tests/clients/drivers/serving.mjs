// What the drivers written in JavaScript share: as serving.py. They run in the folder of their node_modules.
import { text } from 'node:stream/consumers';

function described(error) {
  const classes = [];
  for (let kind = Object.getPrototypeOf(error); kind && kind !== Object.prototype; kind = Object.getPrototypeOf(kind)) {
    classes.push(kind.constructor.name);
  }
  return {
    classes: [error.name, ...classes],
    status: error.status ?? error.statusCode ?? null,
    code: error.code ?? error.data?.error?.code ?? null,
    message: String(error.message).slice(0, 5000),
    cause: null,
  };
}

// `make` takes the base URL and gives `draw(case)`, which resolves to pictures, each a URL or base64, or to
// `{ pictures, partials }`.
export async function serve(make) {
  const told = JSON.parse(await text(process.stdin));
  const draw = make(told.base_url);
  for (const one of told.cases) {
    let outcome;
    try {
      let pictures;
      for (let left = one.tries ?? 1; left > 0; left -= 1) pictures = await draw(one);
      outcome = Array.isArray(pictures) ? { pictures } : pictures;
    } catch (error) {
      console.error(error);
      outcome = { error: described(error) };
    }
    console.log(JSON.stringify({ name: one.name, ...outcome }));
  }
}

export const pick = (one, names) =>
  Object.fromEntries(names.filter((name) => one[name] != null).map((name) => [name, one[name]]));

export const bytesOf = (base64) => Buffer.from(base64, 'base64');

// What the AI SDK calls a prompt: words, or words and pictures.
export const promptOf = (one) =>
  one.images
    ? { text: one.prompt, images: one.images.map(bytesOf), mask: one.mask && bytesOf(one.mask) }
    : one.prompt;
