// A program that answers on TCP and UDP ports with its name and the address that the client is seen under.
// Started by service.ts in a host or a sandbox: `node answering-service.ts NAME tcp4:80 udp6:53@fd00::1 …`
import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';

const [name = '', ...services] = process.argv.slice(2);

await Promise.all(services.map(listen));
console.log('listening');
// The starter holds the other end: when it dies, however it dies, so does this.
process.stdin.resume().on('end', () => process.exit());

function listen(service: string): Promise<void> {
  const [, transport = '', port = '', address] = /^(\w+):(\d+)(?:@(.+))?$/.exec(service) ?? [];
  const isV6 = transport.endsWith('6');
  const host = address ?? (isV6 ? '::' : '0.0.0.0');
  return new Promise((resolve, reject) => {
    if (transport.startsWith('tcp')) {
      const server = createServer((socket) => {
        socket.on('error', () => {});
        const text = `${name} ${socket.remoteAddress}\n`;
        // A client that speaks first gets a page, the others get the line at once.
        const timer = setTimeout(() => socket.end(text), 20);
        socket.once('data', (data) => {
          clearTimeout(timer);
          const head = `HTTP/1.0 200 OK\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n`;
          socket.end(data.toString().startsWith('GET ') ? head + text : text);
        });
      });
      server.on('error', reject).listen({ port: Number(port), host, ipv6Only: isV6 }, resolve);
    } else {
      const socket = createSocket({ type: isV6 ? 'udp6' : 'udp4', ipv6Only: isV6 });
      socket.on('error', reject);
      socket.on('message', (_, { port, address }) => socket.send(`${name} ${address}\n`, port, address));
      socket.bind(Number(port), host, resolve);
    }
  });
}
