// What a client asks of the plugins, call by call: recorded once by real clients, told from its accidents, played again.
// Used by test/fixtures/capture-calls.ts, which records, and test/binary/client-calls.test.ts, which plays.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PrivateHost, Sandbox } from './private-host.ts';
import { pluginDirectory } from './run-plugin.ts';
import { DISK, type RuntimeHost } from './runtime-host.ts';

/** One run of a plugin. Accidents stand as `{id1}`, `{netns1}`, `{mac}` and `{veth}`, the same number for the same thing. */
export interface ClientCall {
  readonly plugin: string;
  /** The variables of the protocol; those of the client's own are left out. */
  readonly env: Readonly<Record<string, string>>;
  /** JSON as a value, anything else as text; links in a prevResult are masked. */
  readonly stdin: unknown;
  /** The namespace was gone when the call came. */
  readonly isNetnsGone?: true;
  readonly exitCode: number;
  /** JSON as a value. */
  readonly stdout: unknown;
  /** Of a call without a command, which prints the banner. */
  readonly stderr?: string;
}

/** All calls of a scenario, in the order in which they began. */
export interface ClientCalls {
  readonly client: string;
  /** What was done, a command line each. */
  readonly commands: readonly string[];
  readonly calls: readonly ClientCall[];
}

const REAL = `${DISK}/real`;
const SHIMS = `${DISK}/shims`;
const LOG = `${DISK}/calls`;

// Clients clean the environment, so everything is spelt out. One directory a call: calls run at the same time.
const SHIM = `#!/bin/bash
PATH=/usr/sbin:/usr/bin:/sbin:/bin
call=${LOG}/$EPOCHREALTIME-$$
mkdir -p "$call"
env -0 > "$call/env"
[ -z "$CNI_NETNS" ] || [ -e "$CNI_NETNS" ] || touch "$call/gone"
cat > "$call/stdin"
"${REAL}/\${0##*/}" < "$call/stdin" > "$call/stdout" 2> "$call/stderr"
code=$?
echo "\${0##*/} $code" > "$call/end"
cat "$call/stderr" >&2
cat "$call/stdout"
exit $code
`;

/** Has every plugin of the host's /opt/cni/bin write down what it is asked. */
export async function startRecording(host: RuntimeHost): Promise<void> {
  mkdirSync(host.file(SHIMS));
  mkdirSync(host.file(REAL));
  mkdirSync(host.file(LOG));
  for (const name of readdirSync(pluginDirectory())) {
    writeFileSync(host.file(join(SHIMS, name)), SHIM, { mode: 0o755 });
  }
  await host.shell(`mount --bind /opt/cni/bin ${REAL}; mount --bind ${SHIMS} /opt/cni/bin`);
}

/** What was recorded until now. What bridge asks of host-local is its own affair and left out. */
export function readRecording(host: RuntimeHost): ClientCall[] {
  const directory = host.file(LOG);
  const mask = makeMask();
  const seen = new Set<string>();
  return readdirSync(directory)
    .sort()
    .map((name) => readCall(join(directory, name), mask))
    .filter(({ plugin, env }) => plugin !== 'host-local' || env['CNI_COMMAND'] === 'VERSION')
    .filter((call) => {
      // Clients ask some things again and again.
      const text = JSON.stringify(call);
      const isNew = !seen.has(text);
      seen.add(text);
      return isNew || !['VERSION', 'STATUS', undefined].includes(call.env['CNI_COMMAND']);
    });
}

/** Plays one call on a host and returns what came of it, in the form of a recording. */
export async function play(host: PrivateHost, call: ClientCall, stage: Stage): Promise<ClientCall> {
  const env = await stage.unmask(call.env, host);
  const recorded = await stage.unmask(call.stdin, host);
  const key = attachmentOf(call);
  const stdin = revive(recorded, stage.results.get(key));
  if (call.isNetnsGone === true) await stage.deleteNetns(call.env['CNI_NETNS'] ?? '');
  const input = typeof stdin === 'string' ? stdin : JSON.stringify(stdin);
  const program = join(pluginDirectory(), call.plugin);
  const { exitCode, stdout, stderr } = await host.attempt(program, [], { env, input });
  if (call.env['CNI_COMMAND'] === 'ADD' && exitCode === 0) stage.results.set(key, JSON.parse(stdout));
  return {
    ...call,
    exitCode,
    stdout: parseOrText(stage.mask(maskLinks(stdout))),
    ...(call.stderr === undefined ? {} : { stderr: maskVersion(stderr) }),
  };
}

/** What stands for the recorded accidents while a recording is played: namespaces of the host, ids made of numbers. */
export class Stage {
  /** The last result of each attachment. */
  readonly results = new Map<string, unknown>();
  readonly #sandboxes = new Map<string, Sandbox>();

  async unmask<T>(value: T, host: PrivateHost): Promise<T> {
    const text = JSON.stringify(value);
    for (const [, name = ''] of text.matchAll(/\{(netns\d+)\}/g)) {
      if (!this.#sandboxes.has(name)) this.#sandboxes.set(name, await host.addSandbox(name));
    }
    return JSON.parse(
      text
        .replace(/\{(netns\d+)\}/g, (_, name: string) => `/run/netns/${name}`)
        .replace(/\{(id\d+)\}/g, (_, name: string) => idOf(name))
        .replaceAll(INSTALLED, pluginDirectory()),
    ) as T;
  }

  mask(text: string): string {
    return text
      .replace(/\/run\/netns\/(netns\d+)/g, '{$1}')
      .replaceAll(pluginDirectory(), INSTALLED)
      .replace(/[0-9a-f]{64}/g, (id) => IDS.get(id) ?? id);
  }

  async deleteNetns(masked: string): Promise<void> {
    const name = masked.slice(1, -1);
    await this.#sandboxes.get(name)?.delete();
    this.#sandboxes.delete(name);
  }
}

const INSTALLED = '/opt/cni/bin';
const IDS = new Map(Array.from({ length: 50 }, (_, i) => [idOf(`id${i}`), `{id${i}}`]));

function idOf(name: string): string {
  return createHash('sha256').update(name).digest('hex');
}

function attachmentOf({ env, stdin }: ClientCall): string {
  const network = isObject(stdin) ? stdin['name'] : '';
  return [network, env['CNI_CONTAINERID'], env['CNI_IFNAME']].join(' ');
}

/** The recorded prevResult with the addresses and names of links that this host has in their places. */
function revive(stdin: unknown, last: unknown): unknown {
  if (!isObject(stdin) || !isObject(stdin['prevResult']) || !isObject(last)) return stdin;
  const links = stdin['prevResult']['interfaces'];
  const present = last['interfaces'];
  if (!Array.isArray(links) || !Array.isArray(present)) return stdin;
  const interfaces = links.map((link: object, i) => {
    const { name, mac } = present[i] as { readonly name: string; readonly mac?: string };
    return { ...link, name, ...('mac' in link ? { mac } : {}) };
  });
  return { ...stdin, prevResult: { ...stdin['prevResult'], interfaces } };
}

function readCall(directory: string, mask: (text: string) => string): ClientCall {
  const read = (name: string) => readFileSync(join(directory, name), 'utf8');
  const [plugin = '', code = ''] = read('end').trim().split(' ');
  const variables = read('env')
    .split('\0')
    .flatMap((line) => {
      const at = line.indexOf('=');
      return line.startsWith('CNI_') ? [[line.slice(0, at), mask(line.slice(at + 1))] as const] : [];
    });
  const env = Object.fromEntries(variables.sort(([a], [b]) => (a < b ? -1 : 1)));
  const stdin = parseOrText(mask(read('stdin')));
  const masked = isObject(stdin) && 'prevResult' in stdin ? maskPrevResult(stdin) : stdin;
  return {
    plugin,
    env,
    stdin: masked,
    ...(existsSync(join(directory, 'gone')) && env['CNI_NETNS'] !== 'dummy' ? { isNetnsGone: true } : {}),
    exitCode: Number(code),
    stdout: parseOrText(mask(maskLinks(read('stdout')))),
    ...(env['CNI_COMMAND'] === undefined ? { stderr: maskVersion(read('stderr').trimEnd()) } : {}),
  };
}

/** Numbers namespaces and ids in the order in which they turn up. */
function makeMask(): (text: string) => string {
  const names = new Map<string, string>();
  const nameOf = (kind: string, value: string) => {
    const count = [...names.values()].filter((name) => name.startsWith(`{${kind}`)).length;
    const name = names.get(value) ?? `{${kind}${count + 1}}`;
    names.set(value, name);
    return name;
  };
  return (text) =>
    text
      .replace(/(\/var)?\/run\/netns\/[\w-]+|\/proc\/\d+\/ns\/net/g, (path) => nameOf('netns', path))
      .replace(/\b[0-9a-f]{64}\b/g, (id) => nameOf('id', id))
      .replace(/(?<=\bcnitool-)[0-9a-f]{20}\b/g, (id) => nameOf('id', id));
}

function maskPrevResult(stdin: Readonly<Record<string, unknown>>): unknown {
  return { ...stdin, prevResult: JSON.parse(maskLinks(JSON.stringify(stdin['prevResult']))) };
}

function maskLinks(text: string): string {
  return text.replace(/"([0-9a-f]{2}:){5}[0-9a-f]{2}"/g, '"{mac}"').replace(/"veth[0-9a-f]+"/g, '"{veth}"');
}

/** A build of its own says another revision. */
function maskVersion(text: string): string {
  return text
    .replace(/(plugin v|Patchbay )\d+\.\d+\.\d+/g, '$1{version}')
    .replace(/revision \S+/, 'revision {revision}');
}

function parseOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
