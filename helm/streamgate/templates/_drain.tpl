{{/* Seconds that a pod needs from its deletion to its exit. The kubelet's clock starts before preStop. */}}
{{- define "streamgate.drainTakes" -}}
{{- with .Values.drain }}
{{- add .preStopSleep .lameduck .timeout .margin }}
{{- end }}
{{- end }}

{{- define "streamgate.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- include "streamgate.drainTakes" . }}
{{- else }}
{{- int64 .Values.terminationGracePeriodSeconds }}
{{- end }}
{{- end }}
