{{- define "streamgate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 53 bytes, as a release's name: "-dashboards" and a pod's suffix still fit. */}}
{{- define "streamgate.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- $name := include "streamgate.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "streamgate.serviceAccount" -}}
{{- default (ternary (include "streamgate.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* What `job` is in Prometheus. StreamgateReplicaDown looks for the word streamgate in it. */}}
{{- define "streamgate.job" -}}
{{- $name := include "streamgate.fullname" . }}
{{- ternary $name (printf "streamgate-%s" $name) (contains "streamgate" $name) }}
{{- end }}

{{- define "streamgate.image" -}}
{{- with .Values.image }}
{{- ternary (printf "%s@%s" .repository .digest) (printf "%s:%s" .repository (default $.Chart.AppVersion .tag)) (ne .digest "") }}
{{- end }}
{{- end }}

{{- define "streamgate.instance" -}}
app.kubernetes.io/name: {{ include "streamgate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "streamgate.selector" -}}
{{ include "streamgate.instance" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* Labels of every object; with a component's own: (dict "root" $ "component" "test"). */}}
{{- define "streamgate.labelsOf" -}}
{{- with .root -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ end -}}
{{ include "streamgate.podLabelsOf" . }}
{{- end }}

{{/* The same without what changes with the chart alone: a pod need not be replaced for that. */}}
{{- define "streamgate.podLabelsOf" -}}
{{- with .root -}}
{{ include "streamgate.instance" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: streamgate
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{ end -}}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "streamgate.labels" -}}
{{ include "streamgate.labelsOf" (dict "root" . "component" "gateway") }}
{{- end }}
