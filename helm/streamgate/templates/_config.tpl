{{/* streamgate.yaml. The demo upstream has nothing to protect; with a real one, who may use it must be said. */}}
{{- define "streamgate.file" -}}
{{- $file := deepCopy .Values.config.file }}
{{- if and (not $file.upstreams) (not $file.keys) (not $file.keys_file) (not $file.jwt) }}
{{- $_ := set $file "keys" "none" }}
{{- end }}
{{- toYaml $file }}
{{- end }}

{{/* Streams per replica that autoscaling aims at. A limit that is shared through a store says nothing of one replica. */}}
{{- define "streamgate.streamsPerReplica" -}}
{{- $limits := default dict .Values.config.file.limits }}
{{- if not (kindIs "invalid" .Values.autoscaling.streamsPerReplica) }}
{{- int64 .Values.autoscaling.streamsPerReplica }}
{{- else if and $limits.concurrent (not $limits.store) }}
{{- max 1 (div (mul (int64 $limits.concurrent) 7) 10) }}
{{- end }}
{{- end }}

{{/* The threshold as a bucket's bound is printed: 2.0, 1.5. Without a promise (0), a bound that is always there. */}}
{{- define "streamgate.firstTokenBound" -}}
{{- $text := dig "observe" "slo" "time_to_first_token" 2.0 .Values.config.file | default 2.0 | toString }}
{{- ternary $text (printf "%s.0" $text) (contains "." $text) }}
{{- end }}
