{{/* Names. A release called "dr" has objects called "dr". */}}
{{- define "dr.fullname" -}}
{{- if contains "dr" .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-dr" (.Release.Name | trunc 49 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "dr.instanceLabels" -}}
app.kubernetes.io/name: dr
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dr.selectorLabels" -}}
{{ include "dr.instanceLabels" . }}
app.kubernetes.io/component: daemon
{{- end }}

{{- define "dr.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "dr.instanceLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dr.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "dr.fullname" .) }}{{ else }}{{ required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "dr.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/* Features that are on, as JSON {feature: true}. What changes the cluster is on at role: recovery only. */}}
{{- define "dr.features" -}}
{{- $on := dict }}
{{- range list "configuration" "configurationSecrets" "executor" "snapshots" "leader" }}
{{- if index $.Values.rights . }}{{ $_ := set $on . true }}{{ end }}
{{- end }}
{{- if eq .Values.role "recovery" }}
{{- range list "restoreConfiguration" "restoreSecrets" "routes" }}
{{- if index $.Values.rights . }}{{ $_ := set $on . true }}{{ end }}
{{- end }}
{{- if or .Values.rights.steps .Values.rights.rules }}{{ $_ := set $on "steps" true }}{{ end }}
{{- end }}
{{- toJson $on }}
{{- end }}

{{/* "true" when the pods talk to the API server of this cluster. */}}
{{- define "dr.usesCluster" -}}
{{- $wanted := .Values.serviceAccount.automountToken }}
{{- if eq (toString $wanted) "auto" }}{{ gt (len (include "dr.features" . | fromJson)) 0 }}{{ else }}{{ $wanted }}{{ end }}
{{- end }}

{{/*
The rules of one scope ("cluster", "namespaces", "own"), as YAML with why each is there; empty when there are none.
Takes a dict: Files, features {feature: true}, steps, customGroups, more (further rules), scope.
*/}}
{{- define "dr.rules" -}}
{{- $table := .Files.Get "files/rights.yaml" | fromYaml }}
{{- $rules := list }}
{{- range $feature, $_ := .features }}
{{- range (index $table.features $feature) }}{{ $rules = append $rules . }}{{ end }}
{{- end }}
{{- range .steps }}
{{- if not (hasKey $table.steps .) }}{{ fail (printf "rights.steps: there is no step %q that needs rights; there are: %s" . (keys $table.steps | sortAlpha | join ", ")) }}{{ end }}
{{- range (index $table.steps .) }}{{ $rules = append $rules . }}{{ end }}
{{- end }}
{{- if .customGroups }}
{{- $verbs := list }}
{{- if hasKey .features "configuration" }}{{ $verbs = list "get" "list" "watch" }}{{ end }}
{{- if hasKey .features "restoreConfiguration" }}{{ $verbs = concat $verbs (list "get" "list" "create" "patch") | uniq }}{{ end }}
{{- if $verbs }}{{ $rules = append $rules (dict "apiGroups" .customGroups "resources" (list "*") "verbs" $verbs "scope" "cluster" "why" "Custom resources, as rights.customGroups names their groups.") }}{{ end }}
{{- end }}
{{- range .more }}{{ $rules = append $rules (merge (dict "scope" "namespaces") . (dict "why" "As rights.rules says.")) }}{{ end }}
{{- $seen := dict }}
{{- range $rules }}
{{- if eq .scope $.scope }}
{{- $key := omit . "why" | toJson }}
{{- if not (hasKey $seen $key) }}
{{- $_ := set $seen $key true }}
# {{ .why }}
- apiGroups: {{ toJson .apiGroups }}
  resources: {{ toJson .resources }}
  {{- with .resourceNames }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: {{ toJson .verbs }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Roles and bindings of one account. Takes a dict: root, name, account, features, steps, more, namespaces, customGroups. */}}
{{- define "dr.roles" -}}
{{- $root := .root }}
{{- $of := dict "Files" $root.Files "features" .features "steps" .steps "more" .more "customGroups" .customGroups }}
{{- $everywhere := include "dr.rules" (merge (dict "scope" "cluster") $of) | trim }}
{{- $there := include "dr.rules" (merge (dict "scope" "namespaces") $of) | trim }}
{{- $own := include "dr.rules" (merge (dict "scope" "own") $of) | trim }}
{{- if not .namespaces }}{{ $everywhere = printf "%s\n%s" $everywhere $there | trim }}{{ end }}
{{- $subject := printf "- kind: ServiceAccount\n  name: %s\n  namespace: %s" .account $root.Release.Namespace }}
{{- $labels := include "dr.labels" $root }}
{{- if $everywhere }}
{{- $name := printf "%s-%s" $root.Release.Namespace .name }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
rules:
  {{- $everywhere | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  {{- $subject | nindent 2 }}
{{- end }}
{{- $roles := dict }}
{{- if and .namespaces $there }}
{{- range .namespaces }}{{ $_ := set $roles . $there }}{{ end }}
{{- end }}
{{- if $own }}
{{- $before := index $roles $root.Release.Namespace | default "" }}
{{- $_ := set $roles $root.Release.Namespace (printf "%s\n%s" $own $before | trim) }}
{{- end }}
{{- $name := .name }}
{{- range $namespace, $rules := $roles }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
rules:
  {{- $rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels: {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  {{- $subject | nindent 2 }}
{{- end }}
{{- end }}

{{/* dr.yaml: what is given, over what a pod of this site needs: where it listens, its folders, how each cluster is reached. */}}
{{- define "dr.config" -}}
{{- $daemon := dict "listen" "0.0.0.0:8080" }}
{{- if not .Values.rights.leader }}{{ $_ := set $daemon "leader" "never" }}{{ end }}
{{- $needed := dict "daemon" $daemon "scratch" "/var/lib/dr" }}
{{- if .Values.runbooks }}{{ $_ := set $needed "runbooks" "/etc/dr/runbooks" }}{{ end }}
{{- $sites := dict }}
{{- if eq (include "dr.usesCluster" .) "true" }}{{ $_ := set $sites .Values.site (dict "cluster" dict) }}{{ end }}
{{- range $site, $_ := .Values.secrets.kubeconfigs }}
{{- $_ := set $sites $site (dict "cluster" (dict "kubeconfig" (printf "/etc/dr/clusters/%s/kubeconfig" $site))) }}
{{- end }}
{{- if $sites }}{{ $_ := set $needed "sites" $sites }}{{ end }}
{{- mergeOverwrite $needed (deepCopy .Values.config) | toYaml }}
{{- end }}
