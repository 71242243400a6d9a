{{/*
Makes .Values what the templates read: the defaults, then `global`, then what was given. Each template begins with it, since
Helm promises no order among them; the second time does nothing.
*/}}
{{- define "limen.prepare" -}}
{{- if hasKey .Values "_internal_defaults_do_not_set" -}}
{{- $given := omit .Values "_internal_defaults_do_not_set" -}}
{{- $defaults := deepCopy (get .Values "_internal_defaults_do_not_set") -}}
{{- $_ := set . "Values" (mustMergeOverwrite $defaults (deepCopy (.Values.global | default dict)) (deepCopy $given)) -}}
{{- end -}}
{{- end -}}

{{/* Without a release's name (helm template with none), the name of Istio's own. */}}
{{- define "limen.name" -}}
{{- if .Values.name -}}
{{- .Values.name -}}
{{- else if or (eq .Release.Name "") (eq .Release.Name "RELEASE-NAME") (eq .Release.Name "release-name") -}}
istio-ingressgateway
{{- else -}}
{{- .Release.Name -}}
{{- end -}}
{{- end -}}

{{/* Names in the whole cluster carry the namespace, since a release's name is unique in its namespace only. */}}
{{- define "limen.clusterName" -}}
limen-{{ include "limen.name" . }}-{{ .Release.Namespace }}
{{- end -}}

{{- define "limen.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "limen.name" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/*
What a Deployment selects its pods by. It cannot be changed later, and an upgrade in place of Istio's chart keeps it: so it is
Istio's, in each particular. An empty text given for `app` is a label with an empty value, not the default.
*/}}
{{- define "limen.selector" -}}
app: {{ if kindIs "invalid" .Values.labels.app }}{{ include "limen.name" . }}{{ else }}{{ .Values.labels.app | quote }}{{ end }}
istio: {{ if kindIs "invalid" .Values.labels.istio }}{{ include "limen.name" . | trimPrefix "istio-" }}{{ else }}{{ .Values.labels.istio | quote }}{{ end }}
{{- end -}}

{{/* The labels given, but those that are selected by. */}}
{{- define "limen.givenLabels" -}}
{{- range $key, $value := omit .Values.labels "app" "istio" }}
{{ $key | quote }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "limen.chartLabels" -}}
app.kubernetes.io/name: {{ include "limen.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/part-of: limen
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "limen.labels" -}}
{{ include "limen.selector" . }}
{{ include "limen.chartLabels" . }}
{{- include "limen.givenLabels" . }}
{{- end -}}

{{/* metadata of what is installed. Takes {root, name, cluster: true for what has no namespace, annotations, labels}. */}}
{{- define "limen.metadata" -}}
name: {{ .name | default (include "limen.name" .root) }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
{{- end }}
labels:
  {{- include "limen.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mustMergeOverwrite (deepCopy (.root.Values.annotations | default dict)) (.annotations | default dict) }}
annotations:
  {{- range $key, $value := . }}
  {{ $key | quote }}: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
Labels of the pods, in the template and for the process itself, which must know what Gateways select it by. Never injected: the
container is the proxy.
*/}}
{{- define "limen.podLabels" -}}
{{ include "limen.selector" . }}
{{ include "limen.chartLabels" . }}
sidecar.istio.io/inject: "false"
{{- with .Values.revision }}
istio.io/rev: {{ . | quote }}
{{- end }}
{{- with .Values.networkGateway }}
topology.istio.io/network: {{ . | quote }}
{{- end }}
{{- include "limen.givenLabels" . }}
{{- end -}}

{{/* The target port that is bound. Takes {root, port, target}. */}}
{{- define "limen.target" -}}
{{- $target := int (.target | default .port) -}}
{{- if and .root.Values.limen.unprivilegedPorts (lt $target 1024) -}}
{{- add $target 8000 -}}
{{- else -}}
{{- $target -}}
{{- end -}}
{{- end -}}

{{/* Ports of the Service, as a list under `ports`. */}}
{{- define "limen.servicePorts" -}}
{{- $root := . -}}
{{- $ports := list -}}
{{- if .Values.networkGateway -}}
{{- range $name, $target := dict "status-port" 15021 "tls" 15443 "tls-istiod" 15012 "tls-webhook" 15017 -}}
{{- $port := get $root.Values.networkGatewayPorts $name | required (printf "networkGatewayPorts.%s is missing, and networkGateway is set" $name) -}}
{{- $ports = append $ports (dict "name" $name "port" $port.port "targetPort" ($port.targetPort | default $target) "protocol" ($port.protocol | default "TCP")) -}}
{{- end -}}
{{- else -}}
{{- $ports = .Values.service.ports -}}
{{- end -}}
{{- $bound := list -}}
{{- range $ports -}}
{{- $target := include "limen.target" (dict "root" $root "port" .port "target" .targetPort) | int -}}
{{- $changed := and $root.Values.limen.unprivilegedPorts (ne $target (int (.targetPort | default .port))) -}}
{{- $bound = append $bound (ternary (mustMergeOverwrite (deepCopy .) (dict "targetPort" $target)) . $changed) -}}
{{- end -}}
{{- toYaml (dict "ports" $bound) -}}
{{- end -}}

{{/* Seconds of a duration such as 25s, 1m30s or 500ms, rounded up. */}}
{{- define "limen.seconds" -}}
{{- if not (regexMatch "^([0-9]+(h|m|s|ms))+$" .) -}}
{{- fail (printf "%q is no duration: write 25s or 1m30s" .) -}}
{{- end -}}
{{- $milliseconds := 0 -}}
{{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- range regexFindAll "[0-9]+(ms|h|m|s)" . -1 -}}
{{- $milliseconds = add $milliseconds (mul (regexFind "[0-9]+" . | int64) (get $units (regexFind "[a-z]+" .))) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end -}}

{{/* A drain must end before Kubernetes ends it, and accept no longer than it lasts. Gives {drain, accept} in seconds. */}}
{{- define "limen.drain" -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- $drain := max 1 (sub $grace 5) | int -}}
{{- with .Values.limen.drainTime -}}
{{- $drain = include "limen.seconds" . | int -}}
{{- if ge $drain $grace -}}
{{- fail (printf "limen.drainTime %s leaves nothing of terminationGracePeriodSeconds %d: connections would be cut by the kill" . $grace) -}}
{{- end -}}
{{- end -}}
{{- $accept := min 5 $drain | int -}}
{{- with .Values.limen.minDrainTime -}}
{{- $accept = include "limen.seconds" . | int -}}
{{- if gt $accept $drain -}}
{{- fail (printf "limen.minDrainTime %s is longer than the drain of %d s" . $drain) -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "drain" $drain "accept" $accept) -}}
{{- end -}}

{{/* requests and limits without what was set to null. */}}
{{- define "limen.resources" -}}
{{- $out := dict -}}
{{- range $group := list "limits" "requests" -}}
{{- $kept := dict -}}
{{- range $name, $value := get $.Values.resources $group | default dict -}}
{{- if $value -}}{{- $_ := set $kept $name $value -}}{{- end -}}
{{- end -}}
{{- if $kept -}}{{- $_ := set $out $group $kept -}}{{- end -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* Whether more than one replica is certain. */}}
{{- define "limen.severalReplicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- if gt (int .Values.autoscaling.minReplicas) 1 -}}yes{{- end -}}
{{- else if gt (int .Values.replicaCount) 1 -}}yes{{- end -}}
{{- end -}}
