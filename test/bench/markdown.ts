// Tables for the benchmark's documents. Called by page.ts and scale/scale-page.ts, pure.

/** A table of GitHub's Markdown; what would break it is escaped. */
export function formatTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}
