import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as client from '@kubernetes/client-node';
import { z } from 'zod';
import type { ClusterObject } from '../../src/cluster/contract.ts';
import { isJson } from '../../src/cluster/json.ts';

/*
 * Kubernetes' own OpenAPI description, as the models that are generated from it have it: which fields there are and of what type
 * (attributeTypeMap), and which must be there (the declarations). A field of another name is a fault: the server would drop it.
 */
const models = join(import.meta.dirname, '../../node_modules/@kubernetes/client-node/dist/gen/models');

interface Field {
  readonly baseName: string;
  readonly type: string;
  readonly format: string;
}

function fieldsOf(type: string): readonly Field[] | undefined {
  const model = (client as unknown as Record<string, { readonly attributeTypeMap?: readonly Field[] }>)[type];
  return model?.attributeTypeMap;
}

function requiredOf(type: string): string[] {
  const text = readFileSync(join(models, `${type}.d.ts`), 'utf8');
  return [...text.matchAll(/^ {4}'(\w+)': /gm)].map(([, name = '']) => name);
}

/** What is wrong with a value of a type of the OpenAPI description, with its path. */
function faults(value: unknown, type: string, format: string, path: string): string[] {
  const list = /^Array<(.+)>$/.exec(type)?.[1];
  if (list !== undefined) {
    if (!Array.isArray(value)) return [`${path} is no list`];
    return value.flatMap((each, index) => faults(each, list, format, `${path}[${index}]`));
  }
  const map = /^\{ \[key: string\]: (.+); \}$/.exec(type)?.[1];
  if (map !== undefined) {
    if (!isJson(value)) return [`${path} is no map`];
    return Object.entries(value).flatMap(([key, each]) => faults(each, map, format, `${path}.${key}`));
  }
  switch (type) {
    case 'any':
      return [];
    case 'string':
    case 'boolean':
      return typeof value === type ? [] : [`${path} must be a ${type}: ${JSON.stringify(value)}`];
    case 'number':
      return typeof value === 'number' && (!format.startsWith('int') || Number.isInteger(value))
        ? []
        : [`${path} must be a number: ${JSON.stringify(value)}`];
    case 'IntOrString':
      return typeof value === 'string' || Number.isInteger(value) ? [] : [`${path} must be a number or a name`];
  }
  const fields = fieldsOf(type);
  if (fields === undefined) return [`${path}: there is no description of ${type}`];
  if (!isJson(value)) return [`${path} is no ${type}`];
  return [
    ...requiredOf(type)
      .filter((name) => value[name] === undefined)
      .map((name) => `${path}.${name} is missing`),
    ...Object.entries(value).flatMap(([key, each]) => {
      const field = fields.find(({ baseName }) => baseName === key);
      return field
        ? faults(each, field.type, field.format, `${path}.${key}`)
        : [`${path}.${key}: ${type} has no such field`];
    }),
  ];
}

const metadata = z.strictObject({
  name: z.string(),
  namespace: z.string(),
  labels: z.record(z.string(), z.string()),
});
const rule = z.strictObject({
  alert: z.string().regex(/^Dr[A-Za-z]+$/),
  expr: z.string(),
  for: z
    .string()
    .regex(/^\d+[smhd]$/)
    .optional(),
  labels: z.strictObject({ severity: z.enum(['critical', 'warning']) }),
  annotations: z.strictObject({ summary: z.string(), description: z.string() }),
});

/** Kinds that come with operators, as their own definitions describe what is used of them. */
const operators: Readonly<Record<string, z.ZodType>> = {
  'monitoring.coreos.com/v1 ServiceMonitor': z.strictObject({
    selector: z.strictObject({ matchLabels: z.record(z.string(), z.string()) }),
    endpoints: z.array(z.strictObject({ port: z.string(), path: z.string(), interval: z.string().regex(/^\d+s$/) })),
  }),
  'monitoring.coreos.com/v1 PrometheusRule': z.strictObject({
    groups: z.array(z.strictObject({ name: z.string(), rules: z.array(rule).min(1) })).min(1),
  }),
  'external-secrets.io/v1 ExternalSecret': z.strictObject({
    refreshInterval: z.string(),
    secretStoreRef: z.strictObject({ kind: z.string(), name: z.string() }),
    target: z.strictObject({ name: z.string(), creationPolicy: z.literal('Owner') }),
    data: z.array(
      z.strictObject({
        secretKey: z.string(),
        remoteRef: z.strictObject({
          key: z.string(),
          property: z.string().optional(),
          version: z.string().optional(),
        }),
      }),
    ),
  }),
};

/** What an API server would not take of an object, or would drop without a word. */
export function schemaFaults(object: ClusterObject): string[] {
  const { apiVersion, kind } = object;
  const operator = operators[`${apiVersion} ${kind}`];
  if (operator) {
    const whole = z.strictObject({ apiVersion: z.string(), kind: z.string(), metadata, spec: operator });
    return (
      whole.safeParse(object).error?.issues.map(({ path, message }) => `${kind} ${path.join('.')}: ${message}`) ?? []
    );
  }
  return faults(object, `V1${kind}`, '', kind);
}
