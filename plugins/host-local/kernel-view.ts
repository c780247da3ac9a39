// What the kernel knows of an address, asked before one is handed out or declared dead: the store may have been lost.
// Called by the allocator and by GC; where the kernel can't be asked, nothing is known and an ADD goes on without.
import { hostLinkName, hostLinkNameOf, ownerHashIn, ownerIn } from '../../shared/cni/attachment.ts';
import { type Ip, ipToBytes } from '../../shared/ip/cidr.ts';
import { isNfTablesMissing, type Nftables } from '../../shared/nftables/nftables.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openRuleset } from '../../shared/ruleset/open.ts';
import { MASQUERADE4, MASQUERADE6 } from '../../shared/ruleset/table.ts';
import type { Holder } from './record.ts';

/** A link behind which an address is in use. */
export interface User {
  readonly link: string;
  /** The attachment the link belongs to, where the link says so. */
  readonly ownerHash: string | undefined;
}

/** What can be asked of the kernel; a test answers for it. */
export interface KernelView {
  /**
   * The links behind which the address is in use: the host link of the attachment that masquerades it, and the bridge
   * port behind which the neighbour with this address was last seen. Empty when the kernel knows none, or can't be
   * asked: an unprivileged caller and an old kernel must get their address all the same.
   */
  listUsers(ip: Ip): readonly User[];
  /** Whether the link that a main plugin of ours makes for the attachment is there. True as well when it can't be asked. */
  hasHostLink(holder: Holder, network: string): boolean;
  /**
   * Whether the kernel has a trace of the address or of its holder: the host link, a masquerade element, a neighbour.
   * True as well when it can't be asked, for then nothing is proven.
   */
  hasTraceOf(ip: Ip, holder: Holder, network: string): boolean;
}

/** The kernel of this namespace. Opens nothing yet: each socket is opened by the first question that needs it. */
export function openKernelView(): KernelView & Disposable {
  return new OpenKernelView();
}

class OpenKernelView implements KernelView, Disposable {
  #rtnetlink: Rtnetlink | undefined;
  #nftables: Nftables | undefined;

  [Symbol.dispose](): void {
    this.#nftables?.[Symbol.dispose]();
    this.#rtnetlink?.[Symbol.dispose]();
  }

  listUsers(ip: Ip): User[] {
    return [() => this.#findMasquerader(ip), () => this.#findNeighbour(ip)].flatMap((find) => {
      try {
        return find() ?? [];
      } catch {
        return [];
      }
    });
  }

  hasHostLink({ containerId, ifname }: Holder, network: string): boolean {
    try {
      return this.#rt.link.find({ name: hostLinkName({ network, containerId, ifname }) }) !== undefined;
    } catch {
      return true;
    }
  }

  hasTraceOf(ip: Ip, holder: Holder, network: string): boolean {
    try {
      return (
        this.hasHostLink(holder, network) || this.#hasElement(ip) || this.#findNeighbourMac(ip) !== undefined
      );
    } catch {
      return true;
    }
  }

  get #rt(): Rtnetlink {
    this.#rtnetlink ??= openRtnetlink();
    return this.#rtnetlink;
  }

  get #nft(): Nftables {
    this.#nftables ??= openRuleset();
    return this.#nftables;
  }

  #findMasquerader(ip: Ip): User | undefined {
    const owner = ownerIn(this.#findComment(ip) ?? '');
    if (owner === undefined) return undefined;
    const link = this.#rt.link.find({ name: hostLinkNameOf(owner.ownerHash) });
    return link === undefined ? undefined : { link: link.name, ownerHash: owner.ownerHash };
  }

  #findComment(ip: Ip): string | undefined {
    return this.#nft.findElement(ip.family === 4 ? MASQUERADE4 : MASQUERADE6, ipToBytes(ip))?.comment;
  }

  #hasElement(ip: Ip): boolean {
    try {
      return this.#nft.findElement(ip.family === 4 ? MASQUERADE4 : MASQUERADE6, ipToBytes(ip)) !== undefined;
    } catch (error) {
      // A kernel without nf_tables has no elements; one that doesn't let us look may have.
      if (isNfTablesMissing(error)) return false;
      throw error;
    }
  }

  // Entries stay long after a container is gone. What goes with it is its port, and the bridge forgets a port's
  // addresses with the port.
  #findNeighbour(ip: Ip): User | undefined {
    const found = this.#findNeighbourMac(ip);
    if (found === undefined) return undefined;
    const port = this.#rt.neigh.findFdb({ master: found.oif, lladdr: found.lladdr });
    if (port === undefined || port.index === found.oif) return undefined;
    const link = this.#rt.link.find({ index: port.index });
    return link === undefined ? undefined : { link: link.name, ownerHash: ownerHashIn(link.alias ?? '') };
  }

  #findNeighbourMac(ip: Ip): { readonly oif: number; readonly lladdr: string } | undefined {
    const route = this.#rt.route.lookup(ip);
    if (route?.oif === undefined || route.gw !== undefined) return undefined;
    const lladdr = this.#rt.neigh.find({ index: route.oif, ip })?.lladdr;
    return lladdr === undefined ? undefined : { oif: route.oif, lladdr };
  }
}
