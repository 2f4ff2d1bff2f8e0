{{/* Names. One template makes each. */}}
{{- define "kubevo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 40 characters leave room for the suffixes, and for what Kubernetes adds to them. */}}
{{- define "kubevo.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "kubevo.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "kubevo.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kubevo.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (printf "%s-operator" (include "kubevo.fullname" .)) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "kubevo.claim" -}}
{{- default (printf "%s-data" (include "kubevo.fullname" .)) .Values.operator.persistence.existingClaim }}
{{- end }}

{{- define "kubevo.priorityClass" -}}
{{- if .Values.priorityClass.create }}
{{- default (include "kubevo.fullname" .) .Values.priorityClass.name }}
{{- else }}
{{- .Values.priorityClass.name }}
{{- end }}
{{- end }}

{{/* The Secret and the ConfigMap that the operator makes once, for the embedded broker. */}}
{{- define "kubevo.keysSecret" -}}
{{ include "kubevo.fullname" . }}-nats-keys
{{- end }}
{{- define "kubevo.brokerConfig" -}}
{{ include "kubevo.fullname" . }}-nats-config
{{- end }}
{{- define "kubevo.lease" -}}
{{ include "kubevo.fullname" . }}-operator
{{- end }}

{{- define "kubevo.natsUrl" -}}
{{- if .Values.nats.enabled -}}
nats://{{ include "kubevo.fullname" . }}-nats.{{ .Release.Namespace }}.svc:4222
{{- else -}}
{{ .Values.nats.external.url }}
{{- end }}
{{- end }}

{{- define "kubevo.natsMonitoring" -}}
{{- if .Values.nats.enabled -}}
{{ include "kubevo.fullname" . }}-nats.{{ .Release.Namespace }}.svc:8222
{{- else -}}
{{ .Values.nats.external.monitoring }}
{{- end }}
{{- end }}

{{- define "kubevo.testNamespace" -}}
{{- if .Values.tests.namespace }}
{{- .Values.tests.namespace }}
{{- else if and .Values.watchNamespaces (not (has .Release.Namespace .Values.watchNamespaces)) }}
{{- first .Values.watchNamespaces }}
{{- else }}
{{- .Release.Namespace }}
{{- end }}
{{- end }}

{{/* An image's full name; takes (dict "image" .Values.x.image "chart" .Chart). */}}
{{- define "kubevo.image" -}}
{{- $name := .image.repository }}
{{- if .image.registry }}{{ $name = printf "%s/%s" (trimSuffix "/" .image.registry) $name }}{{ end }}
{{- if .image.digest -}}
{{ $name }}@{{ .image.digest }}
{{- else -}}
{{ $name }}:{{ default .chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{/* Labels; each takes (dict "root" $ "component" "operator"). Those that select never change. */}}
{{- define "kubevo.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kubevo.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "kubevo.labels" -}}
{{ include "kubevo.selectorLabels" . }}
app.kubernetes.io/part-of: kubevo
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The metadata that every object has; "annotations" may add to the common ones. */}}
{{- define "kubevo.metadata" -}}
labels:
  {{- include "kubevo.labels" . | nindent 2 }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Labels and annotations of a workload's pods; "values" is the workload's block. */}}
{{- define "kubevo.podMetadata" -}}
labels:
  {{- include "kubevo.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: kubevo
  {{- with merge (dict) (default dict .labels) .values.podLabels .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .values.podAnnotations .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What pods and their containers may. */}}
{{- define "kubevo.podSecurity" -}}
{{- with .Values.podSecurityContext -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "kubevo.containerSecurity" -}}
{{- with .Values.securityContext -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where pods run. */}}
{{- define "kubevo.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "kubevo.priorityClass" .root }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "kubevo.selectorLabels" $ | fromYaml)) }}
  - {{- merge (dict) . $own | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The rules of one role of a file of rights; takes (dict "root" $ "file" "operator" "index" 0). */}}
{{- define "kubevo.rules" -}}
{{- $text := .root.Files.Get (printf "files/rbac/%s.yaml" .file) }}
{{- $document := index (splitList "\n---\n" $text) .index | fromYaml }}
{{- toYaml $document.rules }}
{{- end }}

{{/* What values can be wrong about together; the schema judges each by itself. */}}
{{- define "kubevo.check" -}}
{{- $p := .Values.operator.persistence }}
{{- if and (gt (int .Values.operator.replicas) 1) (not $p.existingClaim) (not (has "ReadWriteMany" $p.accessModes)) }}
{{- fail (printf "operator.replicas: expected 1, or operator.persistence.accessModes [ReadWriteMany] so that all replicas have the runs, got %d with %s" (int .Values.operator.replicas) (toJson $p.accessModes)) }}
{{- end }}
{{- $e := .Values.nats.external }}
{{- if and .Values.nats.enabled $e.url }}
{{- fail "nats.external.url: expected nothing while nats.enabled is true: set nats.enabled=false to use your own broker" }}
{{- end }}
{{- if not .Values.nats.enabled }}
{{- if not $e.url }}
{{- fail "nats.external.url: expected the broker's address, since nats.enabled is false" }}
{{- end }}
{{- $ways := compact (list $e.credentialsSecret.name $e.tokenSecret.name $e.accountSeedSecret.name) }}
{{- if ne (len $ways) 1 }}
{{- fail (printf "nats.external: expected the name of one of credentialsSecret, tokenSecret, accountSeedSecret, got %d" (len $ways)) }}
{{- end }}
{{- end }}
{{- $l := .Values.operator.lease }}
{{- if not (and (lt (float64 $l.retrySeconds) (float64 $l.renewSeconds)) (lt (float64 $l.renewSeconds) (float64 $l.seconds))) }}
{{- fail (printf "operator.lease: expected retrySeconds < renewSeconds < seconds, got %v, %v, %v" $l.retrySeconds $l.renewSeconds $l.seconds) }}
{{- end }}
{{- if and .Values.tests.namespace .Values.watchNamespaces (not (has .Values.tests.namespace .Values.watchNamespaces)) }}
{{- fail (printf "tests.namespace: expected one of watchNamespaces, got %s" .Values.tests.namespace) }}
{{- end }}
{{- if and .Values.api.ingress.enabled (not .Values.api.enabled) }}
{{- fail "api.ingress.enabled: expected api.enabled, too" }}
{{- end }}
{{- if and .Values.api.httpRoute.enabled (or (not .Values.api.enabled) (not .Values.api.httpRoute.parentRefs)) }}
{{- fail "api.httpRoute: expected api.enabled and the Gateways in parentRefs" }}
{{- end }}
{{- end }}
