// How the demo writes: headings, check marks and tables, with colour only where a terminal asks for it.
// Used by demo.ts and topology.ts.

const hasColour = process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined;

export const bold = style(1, 22);
export const dim = style(2, 22);
export const red = style(31, 39);
export const green = style(32, 39);
export const cyan = style(36, 39);

export function print(text = ''): void {
  process.stdout.write(`${text}\n`);
}

export function heading(text: string): void {
  print(`\n${bold(text)}`);
  print(dim('─'.repeat(text.length)));
}

/** One thing that holds: what, and how one can tell. */
export function holds(what: string, evidence: string): void {
  print(`  ${green('✓')} ${what.padEnd(34)} ${dim(evidence)}`);
}

export function fails(what: string): void {
  print(`  ${red('✗')} ${what}`);
}

/** One verb of a plugin, on whom, and how long its process lived. */
export function took(verb: string, who: string, ms: number, remark: string): void {
  const time = `${ms.toFixed(0).padStart(4)} ms`;
  print(`  ${bold(verb.padEnd(7))} ${who.padEnd(8)} ${time}   ${dim(remark)}`);
}

/** Lines of equal columns; the width of a cell does not count its colours. */
export function table(rows: readonly (readonly string[])[], indent = '  '): void {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [column, cell] of row.entries()) {
      widths[column] = Math.max(widths[column] ?? 0, visibleLength(cell));
    }
  }
  for (const row of rows) {
    const cells = row.map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - visibleLength(cell)));
    print(`${indent}${cells.join('  ').trimEnd()}`);
  }
}

function style(on: number, off: number): (text: string) => string {
  return (text) => (hasColour ? `\u001b[${on}m${text}\u001b[${off}m` : text);
}

function visibleLength(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours are control sequences
  return text.replace(/\u001b\[\d+m/g, '').length;
}
