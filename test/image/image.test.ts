import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
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
import { tempDir } from '../harness/temp.ts';

const repository = join(import.meta.dirname, '../..');
const image = 'dr-test-image';
const password = 'container-never-tells-1729';
/** What the image promises to run as. */
const user = '1000:1000';

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
      GenericContainer.fromDockerfile(repository).build(image, { deleteOnExit: false }),
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
    const { dockerode } = (await getContainerRuntimeClient()).container;
    const container = await dockerode.createContainer({
      Image: image,
      Cmd: args,
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

  test('doctor says which programs a recovery would miss here', async () => {
    const { code, stdout } = await dr('doctor', '--site', 'west');
    expect(stdout).toContain('PostgreSQL 17 is needed to recover this database and is not installed here');
    expect(code).toBe(14);
  });
});
