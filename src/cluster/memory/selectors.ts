import type { ClusterObject, Selection } from '../contract.ts';
import { StatusError } from '../errors.ts';

/** Tells whether an object is selected; throws what the server would say about a selector that it does not understand. */
export function matcher({ namespace, labels, fields }: Selection): (object: ClusterObject) => boolean {
  const byLabel = (labels ?? '').trim() === '' ? [] : splitRequirements(labels ?? '').map(labelTest);
  const byField = (fields ?? '').trim() === '' ? [] : (fields ?? '').split(',').map(fieldTest);
  return (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) &&
    byLabel.every((test) => test(object.metadata.labels ?? {})) &&
    byField.every((test) => test(object));
}

/** `a=b,c in (d,e)` at the commas outside of brackets. */
function splitRequirements(selector: string): string[] {
  return selector.split(/,(?![^(]*\))/).map((part) => part.trim());
}

function labelTest(text: string): (labels: Readonly<Record<string, string>>) => boolean {
  const set = /^([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(text);
  if (set) {
    const [, key = '', how, list = ''] = set;
    const values = list.split(',').map((value) => value.trim());
    return (labels) => values.includes(labels[key] ?? '\0') === (how === 'in');
  }
  const pair = /^([\w./-]+)\s*(!=|==?)\s*([\w.-]*)$/.exec(text);
  if (pair) {
    const [, key = '', how, value] = pair;
    return (labels) => (labels[key] === value) === (how !== '!=');
  }
  const presence = /^(!?)([\w./-]+)$/.exec(text);
  if (presence) {
    const [, not, key = ''] = presence;
    return (labels) => Object.hasOwn(labels, key) === (not === '');
  }
  throw new StatusError({ code: 400, reason: 'BadRequest', message: `unable to parse requirement: ${text}` });
}

function fieldTest(text: string): (object: ClusterObject) => boolean {
  const [, key, how, value = ''] = /^\s*(metadata\.name|metadata\.namespace)\s*(!=|==?)\s*(\S*)\s*$/.exec(text) ?? [];
  if (key === undefined) {
    const message = `field label not supported: ${text}`;
    throw new StatusError({ code: 400, reason: 'BadRequest', message });
  }
  return ({ metadata }) =>
    ((key === 'metadata.name' ? metadata.name : (metadata.namespace ?? '')) === value) === (how !== '!=');
}
