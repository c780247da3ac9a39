// placeholder
export function hardenEnvironment(image: Buffer): Buffer {
  return image;
}
