// What else lives on a host and is none of our business: other firewalls, links, networks, files in the store.
// Called by the faults tests, which compare all of it before and after.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import type { PrivateHost } from './private-host.ts';

/**
 * Puts up a Docker-like iptables set, a firewalld-like table, rules of another CNI plugin, links of others (one of them
 * named as ours are), and files of others beside those of the network.
 */
export async function addSurroundings(host: PrivateHost, network: string): Promise<void> {
  await host.shell(`
    iptables-restore --noflush <<'END'
${DOCKER}
END
    nft -f - <<'END'
${FIREWALLD}
END
    ip link add docker0 type bridge
    ip addr add 172.17.0.1/16 dev docker0
    ip link set docker0 up
    ip link add vethabcdef01234 master docker0 type veth peer name foreign0
    ip link set vethabcdef01234 up
    ip link add uplink9 type bridge
    ip addr add 192.0.2.77/32 dev uplink9
    ip route add 203.0.113.0/24 dev docker0
    echo 1 > /proc/sys/net/ipv4/conf/docker0/route_localnet
    echo 2 > /proc/sys/net/ipv4/conf/uplink9/rp_filter
  `);
  const store = host.file(`/var/lib/cni/networks/${network}`);
  const other = host.file('/var/lib/cni/networks/somebody-else');
  const results = host.file('/var/lib/cni/results');
  for (const directory of [store, other, results]) mkdirSync(directory, { recursive: true });
  writeFileSync(`${store}/README`, 'kept by the operator\n');
  writeFileSync(`${store}/.backup`, 'x'.repeat(5000));
  symlinkSync('/etc/hostname', `${store}/10.92.0.250`);
  writeFileSync(`${other}/10.92.0.9`, 'pod\r\neth0');
  writeFileSync(`${results}/${network}-pod-eth0`, '{}');
}

/** Every network setting of the host, one a line: many more than a snapshot has. */
export async function listSettings(host: PrivateHost): Promise<string[]> {
  const { stdout } = await host.shell('grep -rs . /proc/sys/net 2>/dev/null || true');
  return stdout.split('\n').filter((line) => !MOVING.test(line));
}

// Counters, keys and measures that the kernel moves by itself.
const MOVING = /nf_conntrack_count|_secret|fastopen_key|tcp_mem|udp_mem|max_dgram|error_burst|flush:/;

const DOCKER = `*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 172.17.0.2:443
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 443 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT`;

const FIREWALLD = `table inet firewalld {
  set trusted { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.0.0/16 } }
  chain nat_POSTROUTING {
    type nat hook postrouting priority srcnat + 10; policy accept;
    ip saddr @trusted oifname "uplink9" masquerade
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state established,related accept
    ct status dnat accept
  }
}
table ip cni_other {
  map ports { type inet_service : verdict; elements = { 9000 : accept } }
  chain forward {
    type filter hook forward priority 0; policy accept;
    tcp dport vmap @ports comment "net: other, if: eth0, id: pod"
  }
}`;
