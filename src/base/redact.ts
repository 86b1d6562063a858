const secrets = new Set<string>();

/**
 * Registers a value that must never be shown (an expanded environment reference, a password, an identity).
 * Values shorter than 6 characters are not registered: replacing them would destroy ordinary text.
 */
export function registerSecret(value: string): void {
  if (value.length >= 6) secrets.add(value);
}

const userinfo = /([a-z][a-z0-9+.-]*:\/\/[^\s:@/"']*):([^\s@/"']+)@/gi;
const ageIdentity = /AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]+/gi;
const passwordPair = /\b(password|passwd|pwd|secret|token|secretAccessKey)(\s*=\s*)('[^']*'|[^\s&"',}]+)/gi;

/** The text with registered secrets, passwords in URLs and connection strings, and age identities replaced. */
export function redact(text: string): string {
  let out = text
    .replace(userinfo, '$1:***@')
    .replace(ageIdentity, 'AGE-SECRET-KEY-***')
    .replace(passwordPair, '$1$2***');
  for (const secret of secrets) if (out.includes(secret)) out = out.replaceAll(secret, '***');
  return out;
}

/** A URL without its credentials and query, safe to print; the input itself (redacted) when it is not a URL. */
export function printableUrl(url: string): string {
  try {
    const parsed = new URL(url);
    parsed.username = '';
    parsed.password = '';
    parsed.search = '';
    return parsed.toString();
  } catch {
    return redact(url);
  }
}
