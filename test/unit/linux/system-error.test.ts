// The names and words of error numbers.
import { constants } from 'node:os';
import { expect, test } from 'vitest';
import { describeErrno, errnoName, errnoOf, SystemError } from '../../../shared/linux/system-error.ts';

test('every number that Node knows has the same name here', () => {
  const aliases = ['EWOULDBLOCK', 'ENOTSUP']; // EAGAIN and EOPNOTSUPP under other names
  for (const [name, errno] of Object.entries(constants.errno)) {
    if (!aliases.includes(name)) expect(errnoName(errno)).toBe(name);
    if (!aliases.includes(name)) expect(errnoOf(name)).toBe(errno);
  }
});

test("numbers beyond Node's are known, gaps and nonsense are shown as numbers", () => {
  expect([errnoName(85), errnoName(92), errnoName(117), errnoName(133)]).toEqual([
    'ERESTART',
    'ENOPROTOOPT',
    'EUCLEAN',
    'EHWPOISON',
  ]);
  expect([errnoName(41), errnoName(4711), errnoName(0)]).toEqual(['E41', 'E4711', 'E0']);
});

test('errors read as sentences with the name at the end', () => {
  expect(new SystemError('setns', 1).message).toBe('Cannot setns: operation not permitted (EPERM)');
  expect(new SystemError('lock', 110, '/run/x').message).toBe(
    'Cannot lock "/run/x": connection timed out (ETIMEDOUT)',
  );
  expect(new SystemError('lock', 110, '/run/x')).toMatchObject({
    syscall: 'lock',
    code: 'ETIMEDOUT',
    errno: 110,
  });
  expect(describeErrno(133)).toBe('EHWPOISON');
});
