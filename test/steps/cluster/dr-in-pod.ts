// The image of dr in the pod of a Job: what its ConfigMap and Secret hold lies in the folder of the test.
const { DR_TEST_ROOT = '', DR_TEST_IDENTITY = 'identity.txt' } = process.env;
if (
  process.env['DR_CONFIG'] !== '/etc/dr/dr.yaml' ||
  process.env['DR_IDENTITY_FILE'] !== '/etc/dr-identity/identity.txt'
)
  throw new Error('the pod does not say where its configuration and identity are mounted');
process.env['DR_CONFIG'] = `${DR_TEST_ROOT}/dr.yaml`;
process.env['DR_IDENTITY_FILE'] = `${DR_TEST_ROOT}/${DR_TEST_IDENTITY}`;
await import('../../../src/main.ts');
