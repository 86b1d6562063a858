import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { runCli } from '../../src/commands/cli.ts';
import { tempDir } from './temp.ts';

/** How a command ended, and what it wrote. */
export interface CommandEnded {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The document on standard output. */
  json(): Record<string, never>;
}

/** A machine with two file vaults (not there yet), a data set and a configuration, on which verbs of `dr` run inside the test's process. */
export class CommandWorld {
  readonly root: string;
  readonly config: string;
  readonly vaults: Readonly<Record<'east' | 'west', string>>;
  /** How far the clock of dr is ahead of the real one, milliseconds. */
  shiftMs = 0;
  readonly clock: Clock = { now: () => Date.now() + this.shiftMs, sleep: systemClock.sleep };

  private constructor(root: string) {
    this.root = root;
    this.config = join(root, 'dr.yaml');
    this.vaults = { east: join(root, 'vault-east'), west: join(root, 'vault-west') };
  }

  static async make(): Promise<CommandWorld> {
    const world = new CommandWorld(await tempDir('commands'));
    const { root, vaults } = world;
    for (const directory of ['uploads', 'etc']) mkdirSync(join(root, directory));
    writeFileSync(join(root, 'uploads', 'a'), 'a'.repeat(100_000));
    writeFileSync(join(root, 'etc', 'settings'), 'x = 1');
    writeFileSync(
      world.config,
      `version: 1
objectives: { rto: 1h, rpo: 15m }
vaults:
  east: { region: eu-west-1, url: "file://${vaults.east}" }
  west: { region: eu-central-1, url: "file://${vaults.west}" }
sites:
  east: { region: eu-west-1, vault: east }
  west: { region: eu-central-1, vault: west }
active: east
encryption: none
data:
  uploads: { path: ${root}/uploads, schedule: daily, retention: 90 days, recover: { west: { path: ${root}/w/uploads } } }
configuration:
  settings: { path: ${root}/etc, schedule: on change, retention: 1 year, recover: { west: { path: ${root}/w/etc } } }
backup: { keepAtLeast: 1 }
`,
    );
    return world;
  }

  /** Changes the text of the configuration file. */
  configure(edit: (text: string) => string): void {
    writeFileSync(this.config, edit(readFileSync(this.config, 'utf8')));
  }

  dr = async (...args: string[]): Promise<CommandEnded> => {
    let stdout = '';
    let stderr = '';
    const code = await runCli({
      args,
      env: { DR_CONFIG: this.config },
      version: '0.0.0',
      stdout: { write: (text: string) => (stdout += text) },
      stderr: { write: (text: string) => (stderr += text) },
      clock: this.clock,
      signal: new AbortController().signal,
    });
    return { code, stdout, stderr, json: () => JSON.parse(stdout) as Record<string, never> };
  };

  /** Does something as if it were `ms` milliseconds ago, by dr's clock and by the times of the vaults' files. */
  async ago(ms: number, work: () => Promise<void>): Promise<void> {
    this.shiftMs = -ms;
    await work();
    this.shiftMs = 0;
    const then = new Date(Date.now() - ms);
    for (const vault of Object.values(this.vaults)) {
      for (const entry of readdirSync(vault, { withFileTypes: true, recursive: true })) {
        if (entry.isFile()) utimesSync(join(entry.parentPath, entry.name), then, then);
      }
    }
  }
}
