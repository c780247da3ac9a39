// What an executable does for people, besides its work for runtimes: commands that turn standard input into standard
// output. Called by main.ts when the executable is started with arguments and without CNI_COMMAND.
import { bannerLines } from './banner.ts';
import type { DispatchIo, Outcome } from './dispatch.ts';
import { CniError, toCniError } from './error.ts';
import type { AnyPlugin } from './plugin.ts';

/** What a command gives: a text, and a line for people about each thing that is worth one. */
export interface ToolAnswer {
  readonly stdout: string;
  readonly remarks: readonly string[];
}

/** A command of a plugin, named by the first argument. It knows no host: only what it reads. */
export interface Tool {
  readonly name: string;
  /** Lines for `--help`, the first with the call. */
  readonly help: readonly string[];
  /** Throws what keeps it from giving an answer. */
  readonly run: (input: Buffer, registry: DispatchIo['registry']) => ToolAnswer;
}

/** Runs the command that the arguments name, or prints what there is. Never throws. */
export function runTool(plugin: AnyPlugin, args: readonly string[], io: DispatchIo): Outcome {
  const tool = plugin.tools.find(({ name }) => args.length === 1 && name === args[0]);
  if (tool !== undefined) return runOne(tool, io);
  if (args.length === 1 && (args[0] === '--help' || args[0] === '-h')) {
    return { stdout: helpText(plugin, io.version), exitCode: 0 };
  }
  io.log(
    `Cannot understand ${args.map((arg) => JSON.stringify(arg)).join(' ')}; see "${plugin.name} --help"`,
  );
  return { stdout: '', exitCode: 1 };
}

function runOne(tool: Tool, io: DispatchIo): Outcome {
  try {
    const { stdout, remarks } = tool.run(io.readStdin(), io.registry);
    for (const remark of remarks) io.log(remark);
    return { stdout, exitCode: 0 };
  } catch (error) {
    // What the error of another layer says of its causes is part of the sentence already.
    const { message } = toCniError(error);
    const details = error instanceof CniError ? error.details : undefined;
    io.log(details === undefined ? message : `${message}: ${details}`);
    return { stdout: '', exitCode: 1 };
  }
}

function helpText(plugin: AnyPlugin, version: string): string {
  const usual = `Container runtimes start ${plugin.name} with CNI_COMMAND set and the network configuration on standard input.`;
  const lines = [...bannerLines(plugin, version), '', usual];
  return `${[...lines, ...plugin.tools.flatMap(({ help }) => ['', ...help])].join('\n')}\n`;
}
