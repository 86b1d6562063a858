import { isScalar, parseDocument, visit } from 'yaml';

/** An environment variable that a configuration file refers to. */
export interface Reference {
  readonly name: string;
  /** True when it must be set; false when every reference to it has a default. */
  readonly required: boolean;
}

/**
 * The environment variables that the text of a configuration refers to (`${NAME}`, `${NAME:-default}`), in the order of the file.
 * Comments and `$${` do not count. What is not YAML refers to nothing.
 */
export function environmentReferences(text: string): Reference[] {
  const document = parseDocument(text, { prettyErrors: false });
  const found = new Map<string, boolean>();
  visit(document, {
    Scalar(key, { value }) {
      if (key === 'key' || typeof value !== 'string') return;
      for (const [, escaped, name = '', otherwise] of value.matchAll(
        /\$(\$)?\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}/g,
      )) {
        if (escaped === undefined) found.set(name, found.get(name) === true || otherwise === undefined);
      }
    },
  });
  return [...found].map(([name, required]) => ({ name, required }));
}

/** The folder of runbooks that the text names, as written; undefined when it names none. */
export function runbooksOf(text: string): string | undefined {
  const value = parseDocument(text, { prettyErrors: false }).get('runbooks', true);
  return isScalar(value) && typeof value.value === 'string' ? value.value : undefined;
}
