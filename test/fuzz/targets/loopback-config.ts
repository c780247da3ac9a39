// loopback's call: it has no field of its own.
import { configTarget } from '../reading.ts';

export const loopbackConfig = configTarget('loopback', 2);
