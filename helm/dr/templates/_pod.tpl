{{/* Security of every container of the chart: Pod Security "restricted" and a read-only root file system. */}}
{{- define "dr.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "dr.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "dr.podSpec" -}}
{{- $name := include "dr.fullname" . -}}
serviceAccountName: {{ include "dr.serviceAccount" . }}
automountServiceAccountToken: {{ include "dr.usesCluster" . }}
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "dr.podSecurity" . | nindent 2 }}
  {{- with .Values.supplementalGroups }}
  supplementalGroups: {{ toJson . }}
  {{- end }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "dr.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: dr
    image: {{ include "dr.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [daemon]
    env:
      - name: DR_CONFIG
        value: /etc/dr/dr.yaml
      - name: DR_SITE
        value: {{ .Values.site | quote }}
      - name: DR_LOG_LEVEL
        value: {{ .Values.logLevel }}
      {{- if .Values.secrets.identity.secret }}
      - name: DR_IDENTITY_FILE
        value: /etc/dr/identity/{{ .Values.secrets.identity.key }}
      {{- end }}
      {{- if .Values.secrets.passphrase.secret }}
      - name: DR_PASSPHRASE_FILE
        value: /etc/dr/passphrase/{{ .Values.secrets.passphrase.key }}
      {{- end }}
      # Who this pod is: its name in leases, and the pattern of Jobs.
      - name: DR_POD_NAME
        valueFrom: { fieldRef: { fieldPath: metadata.name } }
      - name: DR_POD_NAMESPACE
        valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
      {{- with .Values.env }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .Values.secrets.env }}
    envFrom:
      {{- range . }}
      - secretRef:
          name: {{ . }}
      {{- end }}
    {{- end }}
    ports:
      - name: http
        containerPort: 8080
        protocol: TCP
    startupProbe:
      httpGet: { path: /startup, port: http }
      periodSeconds: 5
      timeoutSeconds: 5
      failureThreshold: 60
    livenessProbe:
      httpGet: { path: /health, port: http }
      periodSeconds: 20
      timeoutSeconds: 10
      failureThreshold: 6
    readinessProbe:
      httpGet: { path: /ready, port: http }
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    resources: {{- toYaml .Values.resources | nindent 6 }}
    securityContext: {{- include "dr.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: configuration
        mountPath: /etc/dr/dr.yaml
        subPath: dr.yaml
        readOnly: true
      {{- if .Values.runbooks }}
      - name: runbooks
        mountPath: /etc/dr/runbooks
        readOnly: true
      {{- end }}
      {{- range $what := list "identity" "passphrase" }}
      {{- if (index $.Values.secrets $what).secret }}
      - name: {{ $what }}
        mountPath: /etc/dr/{{ $what }}
        readOnly: true
      {{- end }}
      {{- end }}
      {{- range $site, $_ := .Values.secrets.kubeconfigs }}
      - name: cluster-{{ $site }}
        mountPath: /etc/dr/clusters/{{ $site }}
        readOnly: true
      {{- end }}
      - name: scratch
        mountPath: /var/lib/dr
      - name: tmp
        mountPath: /tmp
      {{- range .Values.volumes }}
      - name: {{ .name }}
        mountPath: {{ .path }}
        readOnly: {{ .readOnly | default false }}
      {{- end }}
volumes:
  - name: configuration
    configMap:
      name: {{ $name }}
  {{- if .Values.runbooks }}
  - name: runbooks
    configMap:
      name: {{ $name }}-runbooks
  {{- end }}
  {{- range $what := list "identity" "passphrase" }}
  {{- with (index $.Values.secrets $what) }}
  {{- if .secret }}
  - name: {{ $what }}
    secret:
      secretName: {{ .secret }}
      defaultMode: 0440
      items: [{ key: {{ .key }}, path: {{ .key }} }]
  {{- end }}
  {{- end }}
  {{- end }}
  {{- range $site, $ref := .Values.secrets.kubeconfigs }}
  - name: cluster-{{ $site }}
    secret:
      secretName: {{ $ref.secret }}
      defaultMode: 0440
      items: [{ key: {{ $ref.key | default "kubeconfig" }}, path: kubeconfig }]
  {{- end }}
  - name: tmp
    emptyDir: {}
  {{- range .Values.volumes }}
  - name: {{ .name }}
    persistentVolumeClaim:
      claimName: {{ .claim }}
      readOnly: {{ .readOnly | default false }}
  {{- end }}
{{- end }}
