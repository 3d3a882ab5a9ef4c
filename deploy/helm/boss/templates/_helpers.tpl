{{- define "boss.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 40 characters, so that the longest suffix and the ordinal of a pod still fit into a label. */}}
{{- define "boss.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "boss.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "boss.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "boss.selectorLabels" -}}
app.kubernetes.io/name: {{ include "boss.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "boss.labels" -}}
{{ include "boss.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "boss.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "boss.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is required without serviceAccount.create" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "boss.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ .Values.image.tagSuffix }}
{{- end }}
{{- end }}

{{- define "boss.terminationGracePeriodSeconds" -}}
{{- with .Values.lifecycle }}{{ add (int64 .drainSeconds) (int64 .graceSeconds) (int64 .marginSeconds) }}{{ end }}
{{- end }}

{{- define "boss.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "boss.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A TOML value. Numbers come as floats from values.yaml: 16384 must not become 1.6384e+04. */}}
{{- define "boss.tomlValue" -}}
{{- if kindIs "string" . -}}
{{ toJson . }}
{{- else if kindIs "bool" . -}}
{{ . }}
{{- else if kindIs "slice" . -}}
[{{ range $i, $value := . }}{{ if $i }}, {{ end }}{{ include "boss.tomlValue" $value }}{{ end }}]
{{- else if and (kindIs "float64" .) (ne . (floor .)) -}}
{{ printf "%g" . }}
{{- else -}}
{{ int64 . }}
{{- end -}}
{{- end }}

{{/* The flags that the chart itself sets, as a YAML map. */}}
{{- define "boss.ownConfig" -}}
listen: "{{ .Values.listenHost }}:50051"
metrics-listen: "{{ .Values.listenHost }}:9464"
data: /data
reflection: {{ .Values.reflection }}
drain-seconds: {{ .Values.lifecycle.drainSeconds }}
grace-seconds: {{ .Values.lifecycle.graceSeconds }}
log-format: {{ .Values.log.format }}
log-level: {{ .Values.log.level }}
{{- if .Values.insecure }}
insecure: true
{{- end }}
{{- if .Values.tls.existingSecret }}
tls-certificate: /run/boss/tls/tls.crt
tls-key: /run/boss/tls/tls.key
{{- if .Values.tls.clientCa }}
tls-client-ca: /run/boss/tls/ca.crt
{{- end }}
{{- end }}
{{- if .Values.access.existingSecret }}
access-file: /run/boss/access/access.json
{{- end }}
{{- if and (or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled) (not (hasKey .Values.config "max-connection-age-seconds")) }}
max-connection-age-seconds: {{ .Values.autoscaling.connectionAgeSeconds }}
{{- end }}
{{- with .Values.datasets }}
dataset-folder:
{{- range . }}
  - {{ .mountPath | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* bossd.toml */}}
{{- define "boss.config" -}}
{{- $own := include "boss.ownConfig" . | fromYaml -}}
{{- $imageDefaults := dict "seed-models" "/opt/boss/share/boss/models" -}}
{{- /* merge takes an empty text for none. */ -}}
{{- if hasKey .Values.config "seed-models" }}{{ $imageDefaults = dict }}{{ end }}
{{- range $key, $value := .Values.config }}
{{- if hasKey $own $key }}{{ fail (printf "config.%s is set by other values of the chart" $key) }}{{ end }}
{{- end }}
{{- range $key, $value := merge (dict) $own .Values.config $imageDefaults }}
{{ $key }} = {{ include "boss.tomlValue" $value }}
{{- end }}
{{- end }}

{{- define "boss.tlsServerName" -}}
{{- default (printf "%s.%s.svc" (include "boss.fullname" .) .Release.Namespace) .Values.tls.serverName }}
{{- end }}

{{/* One probe's action: health's service name as .service (docs/lifecycle.md). */}}
{{- define "boss.probeAction" -}}
{{- if .root.Values.tls.existingSecret -}}
exec:
  command: [bossctl, health{{ with .service }}, {{ . }}{{ end }}]
{{- else -}}
grpc:
  port: 50051
  {{- with .service }}
  service: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where bossctl finds the server, for the probes and for those who open a shell. */}}
{{- define "boss.clientEnv" -}}
- name: BOSS_ADDRESS
  value: {{ .address }}
{{- if .root.Values.tls.existingSecret }}
- name: BOSS_TLS_CA
  value: /run/boss/tls/ca.crt
- name: BOSS_TLS_SERVER_NAME
  value: {{ include "boss.tlsServerName" .root }}
{{- if .root.Values.tls.clientCa }}
- name: BOSS_TLS_CERTIFICATE
  value: /run/boss/probe/tls.crt
- name: BOSS_TLS_KEY
  value: /run/boss/probe/tls.key
{{- end }}
{{- end }}
{{- end }}

{{- define "boss.queueWaitQuery" -}}
{{- /* Idle replicas have no quantile: they wait for nothing. Replicas that Prometheus knows nothing of yield nothing, and nothing is not 0. */ -}}
sum(histogram_quantile(0.9, sum by (le, pod) (rate(boss_sampling_queue_seconds_bucket{namespace="{{ .Release.Namespace }}",pod=~"{{ include "boss.fullname" . }}-[0-9]+"}[2m]))) >= 0
or sum by (pod) (rate(boss_sampling_queue_seconds_bucket{namespace="{{ .Release.Namespace }}",pod=~"{{ include "boss.fullname" . }}-[0-9]+"}[2m])) * 0)
{{- end }}

{{/* What values contradict; rendered for its failures. */}}
{{- define "boss.check" -}}
{{- $v := .Values }}
{{- if not (or $v.insecure (and $v.tls.existingSecret (or $v.access.existingSecret $v.tls.clientCa))) }}
{{- fail "bossd does not listen to other machines until callers are told apart: set tls.existingSecret, and access.existingSecret or tls.clientCa; or insecure=true where something else sees to it" }}
{{- end }}
{{- if and $v.tls.clientCa (not $v.tls.existingSecret) }}{{ fail "tls.clientCa needs tls.existingSecret with ca.crt" }}{{ end }}
{{- if and $v.tls.clientCa (not $v.tls.probeSecret) }}{{ fail "tls.clientCa needs tls.probeSecret: without a certificate the probes cannot connect" }}{{ end }}
{{- if and $v.autoscaling.hpa.enabled $v.autoscaling.keda.enabled }}{{ fail "autoscaling.hpa and autoscaling.keda exclude each other: two controllers would fight over the replicas" }}{{ end }}
{{- if and (or $v.autoscaling.hpa.enabled $v.autoscaling.keda.enabled) (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) }}{{ fail "autoscaling.maxReplicas is less than autoscaling.minReplicas" }}{{ end }}
{{- if and $v.gpu.count (hasKey $v.config "device") (eq (toString (get $v.config "device")) "cpu") }}{{ fail "gpu.count asks for cards, and config.device is cpu" }}{{ end }}
{{- end }}
