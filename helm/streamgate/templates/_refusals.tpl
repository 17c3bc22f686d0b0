{{/* What cannot hold, all of it at once. */}}
{{- define "streamgate.refusals" -}}
{{- $v := .Values }}
{{- $file := $v.config.file }}
{{- $wrong := list }}

{{- $takes := int64 (include "streamgate.drainTakes" .) }}
{{- $grace := int64 (include "streamgate.grace" .) }}
{{- if lt $grace $takes }}
{{- $wrong = append $wrong (printf "terminationGracePeriodSeconds: %d s cannot hold a drain of %d s (preStopSleep %d + lameduck %d + timeout %d + margin %d): expected null, %d or more, or a shorter drain.timeout" $grace $takes (int64 $v.drain.preStopSleep) (int64 $v.drain.lameduck) (int64 $v.drain.timeout) (int64 $v.drain.margin) $takes) }}
{{- end }}
{{- if gt $grace (int64 $v.drain.longestGrace) }}
{{- $wrong = append $wrong (printf "drain.timeout: the grace period would be %d s, and drain.longestGrace is %d s: expected a shorter drain, or a longestGrace that your cluster keeps" $grace (int64 $v.drain.longestGrace)) }}
{{- end }}

{{- range $key := list "listen" "drain" }}
{{- if hasKey $file $key }}
{{- $wrong = append $wrong (printf "config.file.%s: the chart sets it: expected %s" $key (ternary "drain.timeout and drain.lameduck" "bindAddress" (eq $key "drain"))) }}
{{- end }}
{{- end }}
{{- if hasKey (default dict $file.admin) "listen" }}
{{- $wrong = append $wrong "config.file.admin.listen: the chart sets it: expected bindAddress" }}
{{- end }}
{{- range $v.extraArgs }}
{{- if regexMatch "^--(config|listen|admin|fd|drain-timeout|lameduck)(=|$)" (toString .) }}
{{- $wrong = append $wrong (printf "extraArgs: %s is the chart's to set" .) }}
{{- end }}
{{- end }}
{{- if and $v.config.existingConfigMap $file }}
{{- $wrong = append $wrong "config.file: expected nothing beside config.existingConfigMap" }}
{{- end }}
{{- if and $file.upstreams (not $file.keys) (not $file.keys_file) (not $file.jwt) }}
{{- $wrong = append $wrong "config.file.keys: with upstreams, say who may use them: expected keys (a list, or the word none), keys_file or jwt" }}
{{- end }}

{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}
{{- $wrong = append $wrong "httpRoute.parentRefs: expected at least one Gateway" }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
{{- $wrong = append $wrong "ingress.hosts: expected at least one host name" }}
{{- end }}

{{- if $v.autoscaling.enabled }}
{{- if not (include "streamgate.streamsPerReplica" .) }}
{{- $wrong = append $wrong "autoscaling.streamsPerReplica: expected a number, or config.file.limits.concurrent without limits.store, of which it is 70 %" }}
{{- end }}
{{- if and $v.autoscaling.cpu (not (dig "requests" "cpu" "" $v.resources)) }}
{{- $wrong = append $wrong "autoscaling.cpu: expected resources.requests.cpu, of which it is a share, or null" }}
{{- end }}
{{- if gt (int64 $v.autoscaling.minReplicas) (int64 $v.autoscaling.maxReplicas) }}
{{- $wrong = append $wrong "autoscaling.minReplicas: expected at most maxReplicas" }}
{{- end }}
{{- end }}

{{- if $wrong }}
{{- fail (printf "\n\nstreamgate:\n- %s\n" (join "\n- " $wrong)) }}
{{- end }}
{{- end }}
