// Commands and objects in words, for the errors of batch.ts and nftables.ts; nothing calls it while all goes well.
// The words follow "Cannot": `add element 10.22.0.2 to map "masquerade4" of table "inet patchbay"`.
import { formatConcatenation } from './datatypes.ts';
import type { ChainRef, Command, Deletable, Flushable, Node, SetRef, TableRef } from './objects.ts';

/** Verb and object of a command. */
export function describeCommand(command: Command): string {
  const { node } = command;
  if (node.kind === 'element') {
    const preposition = command.verb === 'delete' ? 'from' : 'to';
    return `${command.verb} element ${describeKey(node.set, node.key)} ${preposition} ${describeSet(node.set)}`;
  }
  if (node.kind === 'rule') return describeRuleCommand(command.verb, node);
  return `${command.verb} ${describeNode(node)}`;
}

function describeRuleCommand(verb: string, rule: Extract<Node | Deletable, { kind: 'rule' }>): string {
  if ('handle' in rule) return `${verb} rule ${rule.handle} from ${describeChain(rule.chain)}`;
  const comment = rule.comment === undefined ? '' : ` "${rule.comment}"`;
  return `${verb} rule${comment} to ${describeChain(rule.chain)}`;
}

function describeNode(node: Exclude<Node | Deletable | Flushable, { kind: 'rule' | 'element' }>): string {
  switch (node.kind) {
    case 'table':
      return describeTable(node);
    case 'chain':
      return describeChain(node);
    case 'map':
    case 'set':
      return describeSet(node);
  }
}

export function describeTable(table: TableRef): string {
  return `table "${table.family} ${table.name}"`;
}

export function describeChain(chain: ChainRef): string {
  return `chain "${chain.name}" of ${describeTable(chain.table)}`;
}

export function describeSet(set: SetRef): string {
  return `${set.kind ?? 'set'} "${set.name}" of ${describeTable(set.table)}`;
}

export function describeKey(set: SetRef, key: Uint8Array): string {
  return formatConcatenation(set.key ?? [], key);
}
