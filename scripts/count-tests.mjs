// Prints `N passed, N failed, N skipped` from vitest's JSON report (first argument); the exit code is 1 when anything failed.
// A test file that could not be loaded, a missing report and a failed check (second argument not 0) count as a failure each.
import { readFileSync } from 'node:fs';

const [report, checked] = process.argv.slice(2);
let passed = 0;
let failed = checked === undefined || checked === '0' ? 0 : 1;
let skipped = 0;
try {
  const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
  for (const { status, assertionResults } of testResults) {
    if (status === 'failed' && !assertionResults.some((test) => test.status === 'failed')) failed++;
    for (const test of assertionResults) {
      if (test.status === 'passed') passed++;
      else if (test.status === 'failed') failed++;
      else skipped++;
    }
  }
} catch (error) {
  console.error(`The tests left no report: ${error.message}`);
  failed++;
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exitCode = failed === 0 ? 0 : 1;
