import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClusterObject, ObjectRef } from '../../../src/cluster/contract.ts';
import { isJson, type Json } from '../../../src/cluster/json.ts';
import { MemoryCluster } from '../../../src/cluster/memory/cluster.ts';
import type { MemoryObjects } from '../../../src/cluster/memory/objects.ts';
import { forgetProcess, nodeBinary, registerProcess } from '../process.ts';
import { containerOf, environmentOf, listOf, mountVolumes } from './containers.ts';

const JOB = { apiVersion: 'batch/v1', kind: 'Job' } as const;
const POD = { apiVersion: 'v1', kind: 'Pod' } as const;
const SNAPSHOT = { apiVersion: 'snapshot.storage.k8s.io/v1', kind: 'VolumeSnapshot' } as const;
const repository = join(import.meta.dirname, '../../..');

interface Running {
  readonly child: ChildProcess;
  readonly logged: string[];
  readonly resultFile: string;
  /** Nothing is told of it any more. */
  isLost: boolean;
}

export interface KubeletOptions {
  readonly objects: MemoryObjects;
  /** Folder for what is copied and written; mounts outside of it are passed over. */
  readonly root: string;
  /** Script that stands for the image: it gets the arguments of the container. */
  readonly script: string;
}

/**
 * The Job controller, the kubelet and the snapshot controller of the tests: runs the pods of Jobs as processes of this machine, with the command
 * line, the environment and the volumes that the pod says, and tells phases, logs and ends as a cluster does.
 */
export class Kubelet implements AsyncDisposable {
  readonly cluster: MemoryCluster;
  /** What lies in a claim, by name. */
  readonly claims = new Map<string, string>();
  /** Images that cannot be pulled. */
  readonly missingImages = new Set<string>();
  /** Container processes do not begin before this is done. */
  beforeStart: (pod: ClusterObject) => Promise<void> = async () => {};
  /** True: a container stands still as soon as it runs. */
  freezes = false;
  /** Every command line that was run, in order. */
  readonly runs: Array<{ readonly pod: string; readonly args: readonly string[]; readonly env: NodeJS.ProcessEnv }> =
    [];
  readonly #options: KubeletOptions;
  readonly #running = new Map<string, Running>();
  #hasRoom = true;
  #isDue = false;
  #count = 0;
  #isOver = false;

  constructor(options: KubeletOptions) {
    this.#options = options;
    const { objects } = options;
    this.cluster = new MemoryCluster({ objects });
    for (const table of ['batch/jobs', '/pods', 'snapshot.storage.k8s.io/volumesnapshots', '/persistentvolumeclaims']) {
      objects.history.watch(table, objects.history.revision, { onChange: () => this.#due(), onBookmark: () => {} });
    }
  }

  jobs(): ClusterObject[] {
    return this.#all('Job');
  }

  pods(): ClusterObject[] {
    return this.#all('Pod').filter(({ metadata }) => metadata.ownerReferences?.some(({ kind }) => kind === 'Job'));
  }

  /** Pods whose process runs. */
  runningPods(): string[] {
    return [...this.#running.keys()];
  }

  /** Ends a pod as a drained or full node does: another one takes its place. */
  evict(name: string): void {
    const running = this.#take(name);
    running.child.kill('SIGKILL');
    const pod = this.#podNamed(name);
    this.#status(pod, {
      phase: 'Failed',
      reason: 'Evicted',
      message: 'The node was low on resource: memory.',
      conditions: [
        { type: 'DisruptionTarget', status: 'True', reason: 'TerminationByKubelet', message: 'low on memory' },
      ],
    });
  }

  /** The node is not heard of any more: its process ends with it, and the pod is told to go and does not. */
  loseNode(name: string): void {
    const running = this.#take(name);
    running.child.kill('SIGKILL');
    const { metadata } = this.#podNamed(name);
    const ref = { ...POD, name, namespace: metadata.namespace ?? '' };
    const { objects } = this.#options;
    const type = objects.typeOf(POD);
    objects.merge(type, ref.namespace, name, { metadata: { finalizers: ['test/node'] } });
    objects.delete(type, ref.namespace, name);
    this.#status(this.#podNamed(name), {
      phase: 'Running',
      reason: 'NodeLost',
      message: 'Node node-1 which was running pod is unresponsive',
    });
  }

  /** From now on pods wait for a node. */
  fillNodes(): void {
    this.#hasRoom = false;
  }

  /** The kernel ends the process. */
  outOfMemory(name: string): void {
    this.#running.get(name)?.child.kill('SIGKILL');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true;
    const all = [...this.#running.values()];
    this.#running.clear();
    await Promise.all(
      all.map(async ({ child }) => {
        const ended =
          child.exitCode !== null || child.signalCode !== null
            ? undefined
            : new Promise((resolve) => child.once('close', resolve));
        child.kill('SIGKILL');
        await ended;
      }),
    );
  }

  #due(): void {
    if (this.#isDue || this.#isOver) return;
    this.#isDue = true;
    setImmediate(() => {
      this.#isDue = false;
      if (!this.#isOver) this.#reconcile();
    });
  }

  #reconcile(): void {
    for (const snapshot of this.#all('VolumeSnapshot')) this.#snapshot(snapshot);
    for (const claim of this.#all('PersistentVolumeClaim')) this.#claim(claim);
    for (const job of this.jobs()) this.#job(job);
    const names = new Set(this.pods().map(({ metadata }) => metadata.name));
    // A pod that is gone is told to stop.
    for (const [name, { child }] of this.#running) if (!names.has(name)) child.kill('SIGTERM');
  }

  #snapshot(snapshot: ClusterObject): void {
    if (isJson(snapshot['status'])) return;
    const source = isJson(snapshot['spec']) && isJson(snapshot['spec']['source']) ? snapshot['spec']['source'] : {};
    const from = this.claims.get(String(source['persistentVolumeClaimName']));
    if (from === undefined) return;
    const { name, namespace = '' } = snapshot.metadata;
    const copy = join(this.#options.root, `snapshot-${name}`);
    cpSync(from, copy, { recursive: true });
    this.claims.set(`snapshot ${name}`, copy);
    this.cluster.setStatus({ ...SNAPSHOT, namespace, name }, { readyToUse: true, restoreSize: '1Gi' });
  }

  #claim(claim: ClusterObject): void {
    const source = isJson(claim['spec']) && isJson(claim['spec']['dataSource']) ? claim['spec']['dataSource'] : {};
    const copy = this.claims.get(`snapshot ${String(source['name'])}`);
    if (copy !== undefined && !this.claims.has(claim.metadata.name)) this.claims.set(claim.metadata.name, copy);
  }

  #job(job: ClusterObject): void {
    const { spec, status } = job;
    if (!isJson(spec) || spec['suspend'] === true || (isJson(status) && Array.isArray(status['conditions']))) return;
    const own = this.pods().filter(({ metadata }) =>
      metadata.ownerReferences?.some(({ uid }) => uid === job.metadata.uid),
    );
    const phases = own.map((pod) => statusOf(pod)['phase']);
    if (phases.includes('Succeeded')) {
      this.#end(job, { type: 'Complete', status: 'True' });
      return;
    }
    const failed = own.find((pod) => statusOf(pod)['phase'] === 'Failed' && !isDisrupted(pod));
    if (failed) {
      const message = 'Job has reached the specified backoff limit';
      this.#end(job, { type: 'Failed', status: 'True', reason: 'BackoffLimitExceeded', message });
      return;
    }
    if (own.every((pod) => statusOf(pod)['phase'] === 'Failed')) this.#makePod(job);
  }

  #end(job: ClusterObject, condition: Json): void {
    this.cluster.setStatus(refOf(JOB, job), { conditions: [condition] });
  }

  #makePod(job: ClusterObject): void {
    const { template } = isJson(job['spec']) ? job['spec'] : {};
    const { metadata, spec } = isJson(template) ? template : {};
    const labels = isJson(metadata) && isJson(metadata['labels']) ? metadata['labels'] : {};
    const { name, namespace = '', uid = '' } = job.metadata;
    const pod = this.#options.objects.create(
      {
        ...POD,
        metadata: {
          name: `${name}-${(++this.#count).toString(36).padStart(5, '0')}`,
          namespace,
          labels: { ...(labels as Record<string, string>), 'job-name': name },
          ownerReferences: [{ ...JOB, name, uid, controller: true }],
        },
        spec,
      },
      namespace,
    );
    this.#status(pod, { phase: 'Pending' });
    void this.#start(pod, containerOf(pod));
  }

  async #start(pod: ClusterObject, container: Json): Promise<void> {
    const waiting = (reason: string, message: string) =>
      this.#status(pod, {
        phase: 'Pending',
        containerStatuses: [{ name: 'dr', state: { waiting: { reason, message } } }],
      });
    if (!this.#hasRoom) {
      const message = '0/3 nodes are available: 3 Insufficient memory.';
      this.#status(pod, {
        phase: 'Pending',
        conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message }],
      });
      return;
    }
    const image = String(container['image']);
    if (this.missingImages.has(image)) {
      waiting('ImagePullBackOff', `Back-off pulling image "${image}"`);
      return;
    }
    await this.beforeStart(pod);
    if (this.#isOver || !this.#all('Pod').some(({ metadata }) => metadata.uid === pod.metadata.uid)) return;
    mountVolumes(pod, container, this.claims, this.#options.root);
    this.#run(pod, container);
  }

  #run(pod: ClusterObject, container: Json): void {
    const { name, namespace = '' } = pod.metadata;
    const resultFile = join(this.#options.root, `termination-${name}`);
    writeFileSync(resultFile, '');
    const args = Array.isArray(container['args']) ? container['args'].map(String) : [];
    const given = environmentOf(pod, container, this.#all('Secret'));
    // Every container has its own file under this path.
    for (const [key, value] of Object.entries(given))
      if (value === container['terminationMessagePath']) given[key] = resultFile;
    const env = { PATH: process.env['PATH'], HOME: this.#options.root, ...given };
    this.runs.push({ pod: name, args, env });
    const child = spawn(nodeBinary, [this.#options.script, ...args], {
      cwd: repository,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { pid = 0 } = child;
    registerProcess(pid);
    if (this.freezes) child.kill('SIGSTOP');
    const running: Running = { child, logged: [], resultFile, isLost: false };
    this.#running.set(name, running);
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        running.logged.push(text);
        this.#options.objects.logs.set(`${namespace}/${name}`, running.logged.join(''));
      });
    }
    child.once('close', (code, signal) => {
      forgetProcess(pid);
      this.#running.delete(name);
      if (!running.isLost && !this.#isOver) this.#ended(pod, running, code ?? (signal === 'SIGKILL' ? 137 : 143));
    });
    this.#status(pod, { phase: 'Running', containerStatuses: [{ name: 'dr', state: { running: {} } }] });
  }

  #ended(pod: ClusterObject, { logged, resultFile }: Running, exitCode: number): void {
    if (!this.#all('Pod').some(({ metadata }) => metadata.uid === pod.metadata.uid)) return;
    const said = readFileSync(resultFile, 'utf8').slice(0, 4096);
    // FallbackToLogsOnError: the end of the log where the program has left no message.
    const message = said !== '' || exitCode === 0 ? said : logged.join('').slice(-2048);
    const reason = exitCode === 0 ? 'Completed' : exitCode === 137 ? 'OOMKilled' : 'Error';
    const terminated = { exitCode, reason, ...(message !== '' && { message }) };
    const phase = exitCode === 0 ? 'Succeeded' : 'Failed';
    this.#status(pod, { phase, containerStatuses: [{ name: 'dr', state: { terminated } }] });
  }

  #take(name: string): Running {
    const running = this.#running.get(name);
    if (!running) throw new Error(`pod ${name} does not run`);
    running.isLost = true;
    return running;
  }

  #podNamed(name: string): ClusterObject {
    const pod = this.#all('Pod').find(({ metadata }) => metadata.name === name);
    if (!pod) throw new Error(`there is no pod ${name}`);
    return pod;
  }

  #status(pod: ClusterObject, status: Json): void {
    this.cluster.setStatus(refOf(POD, pod), status);
  }

  #all(kind: string): ClusterObject[] {
    return this.#options.objects.all().filter((object) => object.kind === kind);
  }
}

function refOf(type: typeof JOB | typeof POD, { metadata }: ClusterObject): ObjectRef {
  return { ...type, name: metadata.name, namespace: metadata.namespace };
}

function statusOf({ status }: ClusterObject): Json {
  return isJson(status) ? status : {};
}

function isDisrupted(pod: ClusterObject): boolean {
  return listOf(statusOf(pod)['conditions']).some(
    ({ type, status }) => type === 'DisruptionTarget' && status === 'True',
  );
}
