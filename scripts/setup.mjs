// Makes a fresh clone usable: `npm test` and `npm run demo` call it first. Needs only Node 20 and npm, says what it does,
// and is silent and quick when there is nothing to do. Nothing outside the clone is written.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, delimiter, dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const neededMajor = 24;
const root = dirname(dirname(fileURLToPath(import.meta.url)));
const modules = join(root, 'node_modules');
const stamp = join(modules, '.dr-setup');
const lockFile = join(root, '.dr-setup.lock');

const lockText = readFileSync(join(root, 'package-lock.json'));
const wanted = createHash('sha256').update(lockText).digest('hex');

if (!isDone()) {
  takeLock();
  try {
    if (!isDone()) setUp();
  } finally {
    rmSync(lockFile, { force: true });
  }
}

function isDone() {
  return existsSync(join(modules, '.bin', 'node')) && readOr(stamp, '') === wanted;
}

function setUp() {
  if (!isInstalled()) {
    console.error('Installing the dependencies of this clone (npm ci); this takes a minute the first time…');
    const npm = run('npm', ['ci', '--no-fund', '--no-audit', '--loglevel=error'], root);
    if (npm !== 0) stop(`npm ci failed (exit ${npm}): look at its messages above, then try again.`);
  }
  provideNode();
  for (const name of readdirSync(modules)) if (/^pg\d/.test(name)) linkLibraries(join(modules, name));
  writeFileSync(stamp, wanted);
}

/** True when npm has installed exactly what the lock file says; packages for other systems may be missing. */
function isInstalled() {
  try {
    const lock = JSON.parse(lockText.toString('utf8')).packages;
    const found = JSON.parse(readFileSync(join(modules, '.package-lock.json'), 'utf8')).packages;
    return Object.entries(lock).every(([path, entry]) => {
      if (path === '' || entry.link) return true;
      const there = found[path];
      return there === undefined ? entry.optional === true : there.version === entry.version;
    });
  } catch {
    return false;
  }
}

/** The npm package `node` fetches its program in an install script; where npm does not run those, it is run here. */
function provideNode() {
  const program = join(modules, '.bin', 'node');
  if (majorOf(program) >= neededMajor) return;
  const folder = join(modules, 'node');
  if (majorOf(join(folder, 'bin', 'node')) < neededMajor) {
    console.error(`Fetching Node ${neededMajor} from npm into node_modules…`);
    run(process.execPath, ['installArchSpecificPackage.js'], folder);
  }
  if (majorOf(join(folder, 'bin', 'node')) >= neededMajor) {
    mkdirSync(dirname(program), { recursive: true });
    rmSync(program, { force: true });
    symlinkSync(join('..', 'node', 'bin', 'node'), program);
  } else if (majorOf(process.execPath) >= neededMajor) {
    rmSync(program, { force: true });
    symlinkSync(process.execPath, program);
  } else {
    stop(
      `Node ${neededMajor} could not be fetched from npm, and this is ${process.version}: install Node ${neededMajor} or newer and try again.`,
    );
  }
}

function majorOf(program) {
  const { stdout, status } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return status === 0 ? Number(/^v(\d+)/.exec(stdout)?.[1] ?? 0) : 0;
}

/** The PostgreSQL packages bring their library links as a list, because npm cannot pack links. */
function linkLibraries(folder) {
  const links = JSON.parse(readOr(join(folder, 'native', 'pg-symlinks.json'), '[]'));
  for (const { source, target } of links) {
    const path = join(folder, target);
    if (lstatSync(path, { throwIfNoEntry: false })) continue;
    symlinkSync(relative(dirname(target), source), path);
  }
}

/** npm runs us with node_modules/.bin first in PATH: what replaces that folder must not run from it. */
function run(command, args, cwd) {
  const path = (process.env.PATH ?? '')
    .split(delimiter)
    .filter((entry) => !entry.endsWith(join('node_modules', '.bin')));
  const environment = { ...process.env, PATH: path.join(delimiter) };
  // What npm told its script about itself would change what the inner npm does.
  for (const name of Object.keys(environment))
    if (/^npm_(lifecycle|package|command|execpath|node_execpath)/.test(name)) delete environment[name];
  const program = process.execPath.startsWith(modules + sep) && command === process.execPath ? 'node' : command;
  const { status, error } = spawnSync(program, args, { cwd, env: environment, stdio: ['ignore', 2, 2] });
  if (error) stop(`cannot run ${basename(program)}: ${error.message}`);
  return status ?? 1;
}

/** Several set-ups of one clone wait for each other; the lock of a dead one is taken over. */
function takeLock() {
  let waiting = false;
  for (;;) {
    try {
      const file = openSync(lockFile, 'wx');
      writeSync(file, String(process.pid));
      closeSync(file);
      process.once('exit', () => {
        if (readOr(lockFile, '') === String(process.pid)) rmSync(lockFile, { force: true });
      });
      return;
    } catch (error) {
      if (error.code !== 'EEXIST')
        stop(`cannot write to this clone (${error.message}): it needs a folder for its dependencies.`);
    }
    const holder = Number(readOr(lockFile, ''));
    // An empty file is one that is being written just now.
    if (holder > 0 && !isAlive(holder)) rmSync(lockFile, { force: true });
    else if (!waiting) {
      waiting = true;
      console.error('Waiting for another set-up of this clone to finish…');
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function readOr(file, otherwise) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return otherwise;
  }
}

function stop(sentence) {
  console.error(sentence);
  process.exit(1);
}
