import type { Json } from './json.ts';

/** Where a cluster is and who asks, as a kubeconfig or the pod's service account says it. */
export interface ClusterSettings {
  /** `https://10.0.0.1:6443`, without a slash at the end. */
  readonly server: string;
  /** For people: `context east`, `service account`. */
  readonly origin: string;
  /** PEM. */
  readonly ca?: Buffer | undefined;
  /** Read again for every new connection, so that a renewed authority is believed. */
  readonly caFile?: string | undefined;
  /** Name in the server's certificate, where it is not that of the address. */
  readonly serverName?: string | undefined;
  readonly insecure: boolean;
  readonly proxy?: string | undefined;
  readonly user: UserSettings;
}

/** Who asks. */
export interface UserSettings {
  readonly name: string;
  readonly token?: string | undefined;
  /** A file that holds the token and is written anew before it expires. */
  readonly tokenFile?: string | undefined;
  /** PEM. */
  readonly cert?: Buffer | undefined;
  readonly certFile?: string | undefined;
  readonly key?: Buffer | undefined;
  readonly keyFile?: string | undefined;
  readonly basic?: { readonly user: string; readonly password: string } | undefined;
  readonly impersonate?: string | undefined;
  /** A program that prints credentials (`aws eks get-token`), as the kubeconfig describes it. */
  readonly exec?: Json | undefined;
  /** A provider of client-node: `oidc`, `gcp`, `azure`. */
  readonly authProvider?: Json | undefined;
}
