// The fast gate before a commit: formatting, lint, types, unit tests and house rules. Run by `npm run check`.
import { report, runStaticChecks, runTests } from './test.ts';

process.exitCode = report([runStaticChecks(), await runTests(['unit'], [])]);
