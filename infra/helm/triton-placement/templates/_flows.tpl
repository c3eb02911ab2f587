{{/* A pod that runs the project's code: its account, if it talks to Kubernetes, and its volumes. What was measured is the
worker's: it runs the flows that write and read it. */}}
{{- define "flows-pod" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .account }}
serviceAccountName: {{ include "name" (dict "root" $.root "of" .) }}
{{- end }}
automountServiceAccountToken: {{ ne .account "" }}
securityContext:
  {{- include "pod-security" 1000 | nindent 2 }}
{{- with .own.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .own.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  - {name: control, secret: {secretName: {{ include "control-secret" .root }}, defaultMode: 0440}}
  - {name: config, configMap: {name: {{ include "name" (dict "root" .root "of" "config") }}}}
  {{- if and .root.Values.catalogue.enabled (eq .account "worker") }}
  - {name: catalogue, persistentVolumeClaim: {claimName: {{ include "catalogue-claim" .root }}}}
  {{- end }}
{{- end -}}

{{- define "flows-container" -}}
{{ include "image" .root.Values.image }}
env:
  - {name: PREFECT_API_URL, value: {{ .root.Values.prefect.apiUrl | quote }}}
  - {name: PREFECT_HOME, value: /tmp/prefect}
  - {name: HOME, value: /tmp}
  - {name: DO_NOT_TRACK, value: "1"}
  # A change in the cluster starts a tick at once, so the worker asks for runs more often than every 10 s.
  - {name: PREFECT_WORKER_QUERY_SECONDS, value: "2"}
  - {name: PREFECT_FLOWS_HEARTBEAT_FREQUENCY, value: "30"}
  - {name: WORK_POOL, value: {{ .root.Values.prefect.workPool | quote }}}
  - {name: INTERVAL_S, value: {{ (.root.Values.placement.limits | default dict).interval_s | default 30 | int | quote }}}
  - {name: TRITON_CONTROL_SECRET_FILE, value: /etc/triton-control/control}
  {{- with .own.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .root.Values.prefect.existingSecret }}
envFrom: [{secretRef: {name: {{ . }}}}]
{{- end }}
resources: {{ toJson (.own.resources | default dict) }}
securityContext:
  {{- include "container-security" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: config, mountPath: /etc/triton-placement, readOnly: true}
  - {name: control, mountPath: /etc/triton-control, readOnly: true}
  {{- if and .root.Values.catalogue.enabled (eq .account "worker") }}
  - {name: catalogue, mountPath: {{ include "catalogue-folder" . }}}
  {{- end }}
{{- end -}}

{{- define "config-file" -}}
/etc/triton-placement/placement.yaml
{{- end -}}

{{- define "register-pod" -}}
{{ include "flows-pod" (dict "root" . "own" .Values.register "account" "") }}
restartPolicy: OnFailure
containers:
  - name: register
    {{- include "flows-container" (dict "root" . "own" .Values.register "account" "") | nindent 4 }}
    command: [sh, -ec]
    args:
      - |
        deploy() { prefect --no-prompt deploy --pool "$WORK_POOL" --tag triton-placement --param config={{ include "config-file" . }} "$@"; }
        prefect --no-prompt work-pool create --overwrite --type process "$WORK_POOL"
        deploy --name kubernetes --interval "$INTERVAL_S"
        for name in profile backtest replay; do deploy --name "$name"; done
        prefect automation inspect "A triton-placement run without heartbeats has crashed" >/dev/null 2>&1 ||
          prefect --no-prompt automation create --from-file /etc/triton-placement/heartbeat.yaml
{{- end -}}
