// What can be the name of a link. Called by config parsers, before a name becomes part of a message, a path or a rule.

/** include/uapi/linux/if.h: IFNAMSIZ counts the terminating NUL. */
export const LINK_NAME_BYTES = 15;

/**
 * The kernel's own rule (net/core/dev.c, dev_valid_name), without `%`, which it would take for a pattern. With `plain`
 * only names that need no quoting in any text: letters, digits, `_`, `.`, `@`, and `-` but for the first.
 */
export function isLinkName(name: string, { plain = false }: { readonly plain?: boolean } = {}): boolean {
  const isShort = name !== '' && Buffer.byteLength(name) <= LINK_NAME_BYTES;
  // No \p{Cc}: compiling a pattern with a Unicode property takes 0.2 ms, ten times what all other patterns here take.
  const isPossible =
    isShort && !/[\s/:%]/.test(name) && !hasControlCharacter(name) && name !== '.' && name !== '..';
  return isPossible && (!plain || /^[A-Za-z0-9_.@][A-Za-z0-9_.@-]*$/.test(name));
}

function hasControlCharacter(text: string): boolean {
  return Array.from(text, (character) => character.charCodeAt(0)).some(
    (code) => code < 0x20 || (code >= 0x7f && code < 0xa0),
  );
}
