import picomatch from 'picomatch';

/**
 * A test of relative paths against globs (`*`, `**`, `?`, `[a-z]`, `{a,b}`); names that begin with a dot are matched like others.
 * Returns the first pattern that fits.
 */
export function globMatcher(patterns: readonly string[]): (path: string) => string | undefined {
  const compiled = patterns.map((pattern) => ({ pattern, matches: picomatch(pattern, { dot: true }) }));
  return (path) => compiled.find(({ matches }) => matches(path))?.pattern;
}
