{{/* A name of ours: the release's name and what it is. */}}
{{- define "name" -}}
{{- printf "%s-%s" .root.Release.Name .of | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What a selector asks for; it cannot change in an upgrade. */}}
{{- define "selector" -}}
app.kubernetes.io/name: triton-placement
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .of }}
{{- end -}}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* The label by which the flows find a pool's Deployment and its pods (tasks/fleets/kubernetes). */}}
{{- define "pool-label" -}}
triton-placement/pool
{{- end -}}

{{/* A model's Service and HTTPRoute, as the flows name them (tasks/fleets/kubernetes/names.py). */}}
{{- define "service-name" -}}
{{- if regexMatch "^[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?$" . -}}
model-{{ . }}
{{- else -}}
model--{{ regexReplaceAll "[^a-z0-9]+" (lower .) "-" | trimAll "-" | trunc 40 | trimAll "-" }}-{{ sha256sum . | trunc 12 }}
{{- end -}}
{{- end -}}

{{- define "image" -}}
image: {{ printf "%s:%s" .repository .tag | quote }}
imagePullPolicy: {{ .pullPolicy | default "IfNotPresent" }}
{{- end -}}

{{- define "control-secret" -}}
{{- .Values.control.existingSecret | default (include "name" (dict "root" . "of" "control")) -}}
{{- end -}}

{{- define "catalogue-claim" -}}
{{- .Values.catalogue.existingClaim | default (include "name" (dict "root" . "of" "catalogue")) -}}
{{- end -}}

{{/* Where the worker has it; the file in it is replaced by renaming another, so the folder is what can be written. */}}
{{- define "catalogue-folder" -}}
/var/lib/triton-placement
{{- end -}}

{{- define "pushgateway-url" -}}
{{- printf "http://%s.%s.svc:9091" (include "name" (dict "root" . "of" "pushgateway")) .Release.Namespace -}}
{{- end -}}

{{/* What every container may not do. */}}
{{- define "container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "pod-security" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Settings of a pool: its own over the defaults; lists are replaced, not joined. */}}
{{- define "pool" -}}
{{- mergeOverwrite (deepCopy .root.Values.poolDefaults) (index .root.Values.pools .pool | default dict) | toYaml -}}
{{- end -}}

{{/* A tick that is this old is overdue: four intervals, and at least the 120 s of files/rules.yaml. */}}
{{- define "overdue-s" -}}
{{- (.Values.placement.limits | default dict).interval_s | default 30 | mulf 4 | ceil | int | max 120 -}}
{{- end -}}
