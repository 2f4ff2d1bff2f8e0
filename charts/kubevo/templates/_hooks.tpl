{{/* A hook's account and rights, which come and go with it.
Takes (dict "root" $ "name" "x" "event" "pre-delete" "scoped" <rules where Experiments are> "own" <rules here>
"namespaces" <list>); an empty list of namespaces means all. */}}
{{- define "kubevo.hookAccess" -}}
{{- $ := .root }}
{{- $of := dict "root" $ "component" "hook" }}
{{- $annotations := dict "helm.sh/hook" .event "helm.sh/hook-weight" "-10" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded,hook-failed" }}
{{- $metadata := include "kubevo.metadata" (merge (dict "annotations" $annotations) $of) }}
{{- $name := .name }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ $.Release.Namespace }}
  {{- $metadata | nindent 2 }}
automountServiceAccountToken: false
{{- $roles := list }}
{{- if .own }}
{{- $roles = append $roles (dict "kind" "Role" "name" (printf "%s-own" $name) "namespace" $.Release.Namespace "rules" .own) }}
{{- end }}
{{- $scoped := .scoped }}
{{- if .namespaces }}
{{- range .namespaces }}
{{- $roles = append $roles (dict "kind" "Role" "name" $name "namespace" . "rules" $scoped) }}
{{- end }}
{{- else }}
{{- $roles = append $roles (dict "kind" "ClusterRole" "name" $name "rules" .scoped) }}
{{- end }}
{{- range ternary $roles list $.Values.rbac.create }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  {{- $metadata | nindent 2 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  {{- $metadata | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ $.Release.Namespace }}
{{- end }}
{{- end }}

{{/* What the pods of hooks have in common; takes (dict "root" $ "account" "x" "module" "y" "env" <text>). */}}
{{- define "kubevo.hookPod" -}}
{{- $ := .root -}}
restartPolicy: Never
serviceAccountName: {{ .account }}
automountServiceAccountToken: true
enableServiceLinks: false
{{ include "kubevo.podSecurity" $ }}
{{- $values := dict "nodeSelector" $.Values.hooks.nodeSelector "tolerations" $.Values.hooks.tolerations }}
{{- with include "kubevo.placement" (dict "root" $ "component" "hook" "values" $values) | trim }}
{{ . }}
{{- end }}
containers:
  - name: hook
    image: {{ include "kubevo.image" (dict "image" $.Values.operator.image "chart" $.Chart) }}
    imagePullPolicy: {{ $.Values.operator.image.pullPolicy }}
    command: [python, -m, {{ .module }}]
    env:
      - name: KUBEVO_NAMESPACE
        valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
      {{- .env | nindent 6 }}
    {{- with $.Values.hooks.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- include "kubevo.containerSecurity" $ | nindent 4 }}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
{{- end }}

{{- define "kubevo.uninstallScoped" -}}
- apiGroups: [kubevo.dev]
  resources: [experiments]
  verbs: [list, patch]
{{- end }}

{{- define "kubevo.testScoped" -}}
- apiGroups: [kubevo.dev]
  resources: [experiments]
  verbs: [get, create, delete]
{{- end }}
