// What of an error may be kept in a log: its words and field names, but none of the values that the runtime handed in.
// Called by call-log.ts; pure.
import { isJsonObject, type JsonObject } from './decode.ts';

/** Stands in the place of a value. */
export const MASK = '…';

/** What must not be kept. */
export interface Confidential {
  /** The decoded config, undefined when it could not be decoded. */
  readonly config: JsonObject | undefined;
  /** CNI_ARGS as given. */
  readonly args: string;
}

/**
 * The message with a mask in the place of every text that comes from the config or from CNI_ARGS. What is wrong with a value
 * ("must be a number, not …") is cut where the value begins, and of a config that could not be decoded only the head of the
 * sentence is left: what follows quotes it.
 */
export function redact(message: string, { config, args }: Confidential): string {
  // Here and not at the top of the file, where they would be made at every start.
  const quoted = /"(?:[^"\\]|\\.)*"/g;
  if (config === undefined) return firstClause(message).replace(quoted, `"${MASK}"`);
  // As decode.ts and its kind word it; a value that is an object or a list may be cut anywhere.
  const withoutValue = message.replace(/, not (?:"|[[{\d-]).*$/s, `, not ${MASK}`);
  const secrets = [...new Set([...textsIn(config), ...pieces(args)])].sort((a, b) => b.length - a.length);
  const masked = withoutValue.replace(quoted, (token, offset: number) => {
    const isFieldName = /\b[Ff]ields? $/.test(withoutValue.slice(0, offset));
    const text = unquote(token);
    return !isFieldName && secrets.some((secret) => isTold(secret, text)) ? `"${MASK}"` : token;
  });
  return secrets
    .filter(({ length }) => length >= SHORTEST_PART)
    .reduce((text, secret) => text.replaceAll(secret, MASK), masked);
}

/** Shorter texts are words of the sentence more often than values. */
const SHORTEST_PART = 4;

function firstClause(message: string): string {
  return message.replace(/[:;].*$/s, '');
}

/** All strings that are values, at any depth, but for what the runtime adds or everybody knows, whatever the plugin. */
function textsIn(config: JsonObject): string[] {
  const known = [
    'cniversion',
    'name',
    'type',
    'prevresult',
    'cni.dev/valid-attachments',
    'cni.dev/attachments',
  ];
  const texts: string[] = [];
  const rest: unknown[] = [config];
  while (rest.length > 0) {
    const value = rest.pop();
    if (typeof value === 'string') texts.push(value);
    else if (Array.isArray(value)) for (const entry of value) rest.push(entry);
    else if (isJsonObject(value)) {
      for (const [key, entry] of Object.entries(value)) {
        if (!known.includes(key.toLowerCase())) rest.push(entry);
      }
    }
  }
  return texts.filter((text) => text !== '');
}

/** CNI_ARGS whole, each pair, and each half of it. */
function pieces(args: string): string[] {
  const pairs = args.split(';');
  return [args, ...pairs, ...pairs.flatMap((pair) => pair.split('='))].filter((text) => text !== '');
}

/** Whether the text is the secret, has it in it, or is a part of it, such as the beginning of a long one. */
function isTold(secret: string, text: string): boolean {
  if (secret === text) return true;
  const [shorter, longer] = secret.length < text.length ? [secret, text] : [text, secret];
  return shorter.length >= SHORTEST_PART && longer.includes(shorter);
}

function unquote(token: string): string {
  try {
    return String(JSON.parse(token));
  } catch {
    return token.slice(1, -1);
  }
}
