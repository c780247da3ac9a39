// `patchbay convert`: network lists turned into one of a single plugin.
import fc from 'fast-check';
import { convert } from '../../../plugins/patchbay/convert.ts';
import { findPlugin } from '../../../plugins/registry.ts';
import { defineTarget } from '../driver.ts';
import { cniVersion, NETWORK, ownFieldsOf, type PluginName } from '../inputs/configs.ts';
import { jsonBytes } from '../inputs/json.ts';
import { field, junk, seldom } from '../inputs/values.ts';
import { attempt, hasControls, promise } from '../target.ts';

const IPAM = { type: 'host-local', ranges: [[{ subnet: '10.66.0.0/24' }]] };

const link = (plugin: PluginName) =>
  fc
    .tuple(
      ownFieldsOf(plugin),
      fc.record({
        capabilities: seldom(fc.constant({ portMappings: true })),
        args: seldom(fc.constantFrom<unknown>({ cni: {} }, {}, 1)),
      }),
    )
    .map(([own, beside]) => ({ type: plugin, ...own, ...JSON.parse(JSON.stringify(beside)) }));

// bridge, some of the others in any order, seldom something else behind them.
const PLUGINS_OF_LIST = fc
  .tuple(
    link('bridge'),
    fc.shuffledSubarray([0, 1, 2]),
    fc.tuple(link('portmap'), link('firewall'), link('tuning')),
    seldom(junk()),
  )
  .map(([bridge, chosen, others, last]) => [
    { ...bridge, ipam: IPAM },
    ...chosen.map((position) => others[position]),
    ...(last === undefined ? [] : [last]),
  ]);

const LIST = fc
  .record({
    cniVersion: cniVersion(),
    cniVersions: seldom(fc.array(cniVersion(), { maxLength: 3 })),
    name: field(fc.constant(NETWORK)),
    disableCheck: seldom(fc.boolean()),
    plugins: field(PLUGINS_OF_LIST),
  })
  .map(({ cniVersions, ...list }) => ({ ...list, ...(cniVersions !== undefined && { cniVersions }) }));

export const convertList = defineTarget({
  name: 'patchbay convert',
  weight: 5,
  input: jsonBytes(LIST),
  run: (bytes) =>
    attempt(() => {
      const { stdout, remarks } = convert(Buffer.from(bytes), findPlugin);
      const { plugins } = JSON.parse(stdout) as { plugins?: { type?: unknown }[] };
      promise(plugins?.[0]?.type === 'patchbay', 'There is no patchbay in the list');
      promise(!remarks.some(hasControls), `A remark holds control characters: ${remarks}`);
      return 'ok';
    }),
});
