// The VLANs of a port as decided from the config, without a kernel.
import { describe, expect, test } from 'vitest';
import { planPortVlans, planVlans, type VlanFields } from '../../../plugins/bridge/vlan-plan.ts';

/** As `bridge vlan show` would print them. */
function shown(fields: VlanFields, defaultPvid = 1): string | undefined {
  const vlans = planVlans(fields);
  return (
    vlans &&
    planPortVlans(vlans, defaultPvid)
      .map(({ first, last, pvid, untagged }) => {
        return `${first === last ? first : `${first}-${last}`}${pvid ? ' PVID' : ''}${untagged ? ' Egress Untagged' : ''}`;
      })
      .join(', ')
  );
}

describe('a port', () => {
  test.each<[string, VlanFields, string | undefined]>([
    ['without any field stays as the bridge makes it', {}, undefined],
    ['of VLAN 0 and an empty trunk stays as the bridge makes it', { vlan: 0, vlanTrunk: [] }, undefined],
    ['of one VLAN has frames without tags in it', { vlan: 100 }, '100 PVID Egress Untagged'],
    ['of VLAN 1 has it like any other', { vlan: 1 }, '1 PVID Egress Untagged'],
    [
      'of a trunk has VLAN 1 as the native one',
      { vlanTrunk: [{ id: 7 }, { minID: 20, maxID: 30 }] },
      '1 PVID Egress Untagged, 7, 20-30',
    ],
    ['of a VLAN and a trunk has both', { vlan: 100, vlanTrunk: [{ id: 7 }] }, '7, 100 PVID Egress Untagged'],
    [
      'of a VLAN inside its trunk sends it without tag',
      { vlan: 25, vlanTrunk: [{ minID: 20, maxID: 30 }] },
      '20-24, 25 PVID Egress Untagged, 26-30',
    ],
    [
      'of overlapping trunks has each VLAN once, in order',
      { vlan: 9, vlanTrunk: [{ id: 40 }, { minID: 20, maxID: 30 }, { minID: 25, maxID: 39 }, { id: 25 }] },
      '9 PVID Egress Untagged, 20-40',
    ],
    [
      'that keeps the default VLAN has it without tags as well',
      { vlan: 100, preserveDefaultVlan: true },
      '1 Egress Untagged, 100 PVID Egress Untagged',
    ],
    [
      'that keeps a default VLAN of its trunk sends it without tag',
      { vlan: 100, vlanTrunk: [{ minID: 1, maxID: 3 }], preserveDefaultVlan: true },
      '1 Egress Untagged, 2-3, 100 PVID Egress Untagged',
    ],
  ])('%s', (_title, fields, expected) => {
    expect(shown(fields)).toBe(expected);
  });

  test('has no default VLAN to keep on a bridge without one', () => {
    expect(shown({ vlan: 100, preserveDefaultVlan: true }, 0)).toBe('100 PVID Egress Untagged');
  });
});

test.each<[string, VlanFields, string]>([
  ['half a range', { vlanTrunk: [{ id: 1 }, { minID: 5 }] }, '"vlanTrunk[1]"'],
  ['a range that is also an id', { vlanTrunk: [{ id: 1, minID: 5, maxID: 6 }] }, '"vlanTrunk[0]"'],
  ['a range that runs backwards', { vlanTrunk: [{ minID: 6, maxID: 5 }] }, '"minID" of 6'],
  ['an entry that says nothing', { vlanTrunk: [{}] }, '"vlanTrunk[0]"'],
])('%s is refused', (_title, fields, named) => {
  const refusal = expect.objectContaining({ code: 7, message: expect.stringContaining(named) });
  expect(() => planVlans(fields)).toThrow(refusal);
});
