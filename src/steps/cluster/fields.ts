import { isJson, type Json } from '../../cluster/json.ts';

/** What an object holds at a path; undefined where the path leads nowhere. */
export function at(value: unknown, ...path: readonly string[]): unknown {
  let here = value;
  for (const key of path) here = isJson(here) && Object.hasOwn(here, key) ? here[key] : undefined;
  return here;
}

export function numberAt(value: unknown, ...path: readonly string[]): number | undefined {
  const found = at(value, ...path);
  return typeof found === 'number' ? found : undefined;
}

export function textAt(value: unknown, ...path: readonly string[]): string | undefined {
  const found = at(value, ...path);
  return typeof found === 'string' ? found : undefined;
}

export function jsonAt(value: unknown, ...path: readonly string[]): Json {
  const found = at(value, ...path);
  return isJson(found) ? found : {};
}

export function listAt(value: unknown, ...path: readonly string[]): readonly Json[] {
  const found = at(value, ...path);
  return Array.isArray(found) ? found.filter((each) => isJson(each)) : [];
}

/** The condition of this type, as objects of Kubernetes report them. */
export function conditionOf(object: unknown, type: string): Json | undefined {
  return listAt(object, 'status', 'conditions').find((each) => each['type'] === type);
}

/** A merge patch (RFC 7386) that makes `from` into `to`. */
export function patchBetween(from: Json, to: Json): Json {
  const patch: Record<string, unknown> = {};
  for (const key of Object.keys(from)) if (!Object.hasOwn(to, key)) patch[key] = null;
  for (const [key, wanted] of Object.entries(to)) {
    const present = from[key];
    if (isJson(wanted) && isJson(present)) {
      const inner = patchBetween(present, wanted);
      if (Object.keys(inner).length > 0) patch[key] = inner;
    } else if (JSON.stringify(present) !== JSON.stringify(wanted)) patch[key] = wanted;
  }
  return patch;
}
